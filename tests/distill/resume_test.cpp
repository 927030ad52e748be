// A run cut short and resumed is the run that was left alone, to the bit.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>

#include "core/error.h"
#include "distill/checkpoint.h"
#include "distill/metrics.h"
#include "distill/trainer.h"
#include "tiny_run.h"

namespace mambify {
namespace {

// Two stages; step 16 is in the middle of the second, where the optimizer has moments.
struct Case {
  const char* name;
  const char* stages;
  bool pairs;
  int64_t steps;

  Recipe recipe_for(const fs::path& dir, const std::vector<std::string>& overrides = {}) const {
    return parse_recipe(testing::tiny_recipe(dir, stages), "tiny.toml", overrides);
  }
  RunInputs inputs() const {
    return pairs ? testing::tiny_inputs_with_pairs(/*stage=*/1) : testing::tiny_inputs();
  }
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

// Everything of metrics.jsonl that does not depend on the clock.
std::vector<nlohmann::json> timeless(const fs::path& run) {
  auto lines = read_metrics(run / "metrics.jsonl");
  for (auto& line : lines) {
    line.erase("seconds");
    line.erase("tokens_per_second");
  }
  return lines;
}

void expect_same_run(const fs::path& a, const fs::path& b) {
  EXPECT_EQ(read_text_file(a / "final" / "model.safetensors"),
            read_text_file(b / "final" / "model.safetensors"));
  EXPECT_EQ(timeless(a), timeless(b));
}

// Leaves a finished run as it was when the checkpoint of `step` was the newest, with metrics
// written beyond it and a half-written checkpoint, as a kill leaves them.
void rewind_to(const fs::path& run, int64_t step) {
  fs::remove_all(run / "final");
  for (const auto& entry : fs::directory_iterator(run / "checkpoints")) {
    if (std::stoll(entry.path().filename().string().substr(5)) > step) {
      fs::remove_all(entry.path());
    }
  }
  fs::create_directories(run / "checkpoints" / "step-99.tmp" / "model");
}

class Resume : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    whole_ = folder_ / "whole";
    run(whole_);
  }

  RunSummary run(const fs::path& dir, const RunOptions& options = {}) const {
    return train(GetParam().recipe_for(dir), GetParam().inputs(), options);
  }

  testing::ScratchFolder folder_;
  fs::path whole_;
};

TEST_P(Resume, TwoRunsAreEqual) {
  run(folder_ / "again");
  expect_same_run(whole_, folder_ / "again");
}

TEST_P(Resume, OnlyTheNewestTwoCheckpointsAreKept) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(whole_ / "checkpoints")) {
    names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
  EXPECT_EQ(names, (std::vector<std::string>{"step-16", fmt::format("step-{}", GetParam().steps)}));
}

TEST_P(Resume, FromTheMiddleOfAStage) {
  rewind_to(whole_, 16);
  const fs::path other = folder_ / "other";
  run(other);
  run(whole_, {.resume = true});
  expect_same_run(other, whole_);
}

TEST_P(Resume, AFinishedRunStaysAsItIs) {
  const fs::path other = folder_ / "other";
  run(other);
  const RunSummary summary = run(whole_, {.resume = true});
  EXPECT_EQ(summary.steps, GetParam().steps);
  expect_same_run(other, whole_);
}

TEST_P(Resume, WithoutACheckpointStartsOver) {
  const fs::path other = folder_ / "other";
  run(other);
  fs::remove_all(whole_ / "checkpoints");
  run(whole_, {.resume = true});
  expect_same_run(other, whole_);
}

TEST_P(Resume, AnotherRecipeIsRefused) {
  const Recipe changed = GetParam().recipe_for(whole_, {"stage.1.clip=0.5"});
  EXPECT_THROW(train(changed, GetParam().inputs(), {.resume = true}), Error);
}

TEST_P(Resume, ADamagedStateIsAnErrorThatNamesTheFile) {
  write_file_atomically(
      whole_ / "checkpoints" / fmt::format("step-{}", GetParam().steps) / "state.json",
      "{\"format\": 2}");
  try {
    run(whole_, {.resume = true});
    FAIL() << "a damaged checkpoint was used";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("state.json"), std::string::npos) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(Stages, Resume,
                         ::testing::Values(Case{"align_distill", testing::kAlignThenDistill, false,
                                                19},
                                           Case{"sft_dpo", testing::kSftThenDpo, true, 17}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace mambify
