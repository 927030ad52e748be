// A run cut short and resumed is the run that was left alone, to the bit.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "distill/checkpoint.h"
#include "distill/metrics.h"
#include "distill/trainer.h"
#include "tiny_run.h"

namespace mambify {
namespace {

using testing::tiny_inputs;

Recipe recipe_for(const fs::path& dir) {
  return parse_recipe(testing::tiny_recipe(dir, testing::kAlignThenDistill), "tiny.toml");
}

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

class Resume : public ::testing::Test {
 protected:
  void SetUp() override {
    whole_ = folder_ / "whole";
    train(recipe_for(whole_), tiny_inputs(), {});
  }

  testing::ScratchFolder folder_;
  fs::path whole_;
};

TEST_F(Resume, TwoRunsAreEqual) {
  train(recipe_for(folder_ / "again"), tiny_inputs(), {});
  expect_same_run(whole_, folder_ / "again");
}

TEST_F(Resume, OnlyTheNewestTwoCheckpointsAreKept) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(whole_ / "checkpoints")) {
    names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
  EXPECT_EQ(names, (std::vector<std::string>{"step-16", "step-19"}));
}

TEST_F(Resume, FromTheMiddleOfAStage) {
  // Steps 1 to 10 align, 11 to 19 distill: step 16 has moments.
  rewind_to(whole_, 16);
  const fs::path other = folder_ / "other";
  train(recipe_for(other), tiny_inputs(), {});
  train(recipe_for(whole_), tiny_inputs(), {.resume = true});
  expect_same_run(other, whole_);
}

TEST_F(Resume, AFinishedRunStaysAsItIs) {
  const fs::path other = folder_ / "other";
  train(recipe_for(other), tiny_inputs(), {});
  const RunSummary summary = train(recipe_for(whole_), tiny_inputs(), {.resume = true});
  EXPECT_EQ(summary.steps, 19);
  expect_same_run(other, whole_);
}

TEST_F(Resume, WithoutACheckpointStartsOver) {
  const fs::path other = folder_ / "other";
  train(recipe_for(other), tiny_inputs(), {});
  fs::remove_all(whole_ / "checkpoints");
  train(recipe_for(whole_), tiny_inputs(), {.resume = true});
  expect_same_run(other, whole_);
}

TEST_F(Resume, AnotherRecipeIsRefused) {
  Recipe changed = parse_recipe(testing::tiny_recipe(whole_, testing::kAlignThenDistill),
                                "tiny.toml", {"stage.1.clip=0.5"});
  EXPECT_THROW(train(changed, tiny_inputs(), {.resume = true}), Error);
}

TEST_F(Resume, ADamagedStateIsAnErrorThatNamesTheFile) {
  write_file_atomically(whole_ / "checkpoints" / "step-19" / "state.json", "{\"format\": 1}");
  try {
    train(recipe_for(whole_), tiny_inputs(), {.resume = true});
    FAIL() << "a damaged checkpoint was used";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("state.json"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace mambify
