#include "distill/checkpoint.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <map>

#include "core/error.h"
#include "tiny_run.h"

namespace mambify {
namespace {

constexpr uint64_t kFingerprint = 0x1234;

// Files of this process cannot grow past a size: what a full disk looks like to a writer.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    old_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old_limit_);
    rlimit limit = old_limit_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &old_limit_);
    std::signal(SIGXFSZ, old_handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit old_limit_{};
  void (*old_handler_)(int);
};

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() {
    stage_.train = TrainSet::all;
    optimizer_.emplace(select_parameters(student_, student_, stage_), stage_);
    optimizer_->for_each_moment([](const std::string& name, at::Tensor& moment) {
      moment.fill_(static_cast<double>(std::hash<std::string>()(name) % 97));
    });
    optimizer_->set_steps(12);
  }

  void save(int64_t step) {
    TrainingState state;
    state.phase = 1;
    state.phase_step = step - 5;
    state.phase_seconds = 1.25;
    state.step = step;
    state.tokens = 64 * step;
    state.skipped = 2;
    state.skipped_in_row = 1;
    state.metrics_bytes = 100 * step;
    save_checkpoint(folder_.path(), state, kFingerprint, student_, &*optimizer_);
  }

  void expect_usable(int64_t step) {
    const auto found = newest_checkpoint(folder_.path(), kFingerprint);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->state.step, step);
    EXPECT_EQ(found->state.phase_step, step - 5);
    EXPECT_EQ(found->state.phase_seconds, 1.25);
    EXPECT_EQ(found->state.tokens, 64 * step);
    EXPECT_EQ(found->state.skipped, 2);
    EXPECT_EQ(found->state.skipped_in_row, 1);
    EXPECT_EQ(found->state.metrics_bytes, 100 * step);

    Model loaded = load_student(*found);
    std::map<std::string, at::Tensor> saved;
    for_each_parameter(student_, [&](const std::string& name, at::Tensor& t) { saved[name] = t; });
    for_each_parameter(loaded, [&](const std::string& name, at::Tensor& t) {
      EXPECT_TRUE(at::equal(t, saved.at(name))) << name;
    });
    AdamW optimizer(select_parameters(loaded, loaded, stage_), stage_);
    load_optimizer(*found, optimizer);
    EXPECT_EQ(optimizer.steps(), 12);
    optimizer.for_each_moment([](const std::string& name, at::Tensor& moment) {
      EXPECT_EQ(moment.flatten()[0].item<double>(),
                static_cast<double>(std::hash<std::string>()(name) % 97));
    });
  }

  testing::ScratchFolder folder_;
  Model student_ = testing::tiny_inputs().student;
  StageSection stage_;
  std::optional<AdamW> optimizer_;
};

TEST_F(CheckpointTest, HoldsEverything) {
  EXPECT_FALSE(newest_checkpoint(folder_.path(), kFingerprint).has_value());
  save(10);
  expect_usable(10);
}

TEST_F(CheckpointTest, TheNewestIsFoundByItsNumber) {
  for (int64_t step : {9, 10, 100}) save(step);
  expect_usable(100);
  EXPECT_FALSE(fs::exists(folder_ / "checkpoints/step-9"));
  EXPECT_TRUE(fs::exists(folder_ / "checkpoints/step-10"));
}

TEST_F(CheckpointTest, AFullDiskLeavesTheOldOneUsable) {
  save(10);
  // Large enough for the small files, too small for the weights; then for weights, not moments.
  for (const rlim_t bytes : {rlim_t{100'000}, rlim_t{1'100'000}}) {
    const FileSizeLimit limit(bytes);
    try {
      save(20);
      FAIL() << "nothing was too large";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr("safetensors"));
    }
    EXPECT_FALSE(fs::exists(folder_ / "checkpoints/step-20"));
    expect_usable(10);
  }
  save(20);
  expect_usable(20);
}

TEST_F(CheckpointTest, AHalfWrittenOneIsNotSeenAndGoesAway) {
  save(10);
  fs::create_directories(folder_ / "checkpoints/step-20.tmp/model");
  expect_usable(10);
  save(30);
  expect_usable(30);
  EXPECT_FALSE(fs::exists(folder_ / "checkpoints/step-20.tmp"));
}

TEST_F(CheckpointTest, AMissingMomentIsNamed) {
  save(10);
  const auto found = newest_checkpoint(folder_.path(), kFingerprint);
  Model loaded = load_student(*found);
  StageSection other = stage_;
  for_each_parameter(loaded, [](const std::string& name, at::Tensor& t) {
    if (name == "final_norm") t = at::ones({7});
  });
  AdamW optimizer(select_parameters(loaded, loaded, other), other);
  try {
    load_optimizer(*found, optimizer);
    FAIL() << "moments of another shape were taken";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("final_norm.mean"));
    EXPECT_THAT(error.what(), ::testing::HasSubstr("[7]"));
  }
}

}  // namespace
}  // namespace mambify
