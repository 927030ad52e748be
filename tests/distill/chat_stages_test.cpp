// Whole runs of the stages sft and dpo on the tiny model.
#include <gtest/gtest.h>

#include <cmath>

#include "distill/metrics.h"
#include "random_model.h"
#include "tiny_run.h"

namespace mambify {
namespace {

using testing::tiny_inputs;
using testing::train_tiny;

TEST(ChatStages, SftLowersTheCrossEntropyAndAsksNoTeacher) {
  const testing::ScratchFolder folder;
  RunInputs inputs = tiny_inputs();
  inputs.teacher = Model();
  const RunSummary summary = train_tiny(folder / "run",
                                        "[[stage]]\nkind = \"sft\"\nsteps = 60\nbatch_tokens = "
                                        "128\nlearning_rate = 3e-3\nlearning_rate_rest = 3e-3\n",
                                        std::move(inputs));
  const StageSummary& stage = summary.stages[0];
  EXPECT_LT(stage.last_loss, 0.9 * stage.first_loss);
  EXPECT_NEAR(*stage.last.ce, stage.last_loss, 1e-6);
  EXPECT_FALSE(stage.last.kl.has_value());
}

TEST(ChatStages, SftIsDistillWithCrossEntropyAlone) {
  const testing::ScratchFolder folder;
  const std::string rest =
      "steps = 3\nbatch_tokens = 64\ntrain = \"all\"\nlearning_rate = 1e-3\n"
      "learning_rate_rest = 1e-3\n";
  train_tiny(folder / "sft", "[[stage]]\nkind = \"sft\"\n" + rest, tiny_inputs());
  train_tiny(folder / "distill",
             "[[stage]]\nkind = \"distill\"\nkl_weight = 0\nce_weight = 1\n" + rest, tiny_inputs());
  EXPECT_EQ(read_text_file(folder / "sft" / "final" / "model.safetensors"),
            read_text_file(folder / "distill" / "final" / "model.safetensors"));
}

TEST(ChatStages, DpoLearnsToPreferTheChosenAnswers) {
  const testing::ScratchFolder folder;
  const RunSummary summary =
      train_tiny(folder / "run", testing::kDpo, testing::tiny_inputs_with_pairs(/*stage=*/0));
  const auto lines = read_metrics(folder / "run" / "metrics.jsonl");
  const StageSummary& stage = summary.stages[0];
  EXPECT_LT(stage.last_loss, 0.7 * stage.first_loss);
  EXPECT_GT(*stage.last.accuracy, 0.95);
  EXPECT_GT(*stage.last.margin, lines.front()["margin"].get<double>());
  // Whole pairs, so that a step has at most the tokens asked for.
  EXPECT_LE(lines.front()["tokens"], 256);
  EXPECT_GT(lines.front()["tokens"], 128);
}

TEST(ChatStages, DpoMayTakeTheStudentItBeginsWithAsTheReference) {
  const testing::ScratchFolder folder;
  RunInputs inputs = testing::tiny_inputs_with_pairs(/*stage=*/0);
  inputs.teacher = Model();
  train_tiny(folder / "run", testing::kDpo, std::move(inputs), {"stage.0.reference=start"});
  const auto lines = read_metrics(folder / "run" / "metrics.jsonl");
  EXPECT_NEAR(lines.front()["loss"].get<double>(), std::log(2.0), 1e-6);
  EXPECT_NEAR(lines.front()["margin"].get<double>(), 0, 1e-6);
  EXPECT_GT(lines.back()["margin"].get<double>(), 0.1);
  EXPECT_FALSE(fs::exists(folder / "run" / "reference"));
}

TEST(ChatStages, StagesWithFilesOfTheirOwnLeaveTheSharedDataAlone) {
  const testing::ScratchFolder folder;
  const std::string align = "[[stage]]\nkind = \"align\"\nsteps = 3\nbatch_tokens = 64\n";
  const std::string sft =
      "[[stage]]\nkind = \"sft\"\nsteps = 2\nbatch_tokens = 64\n"
      "learning_rate = 1e-12\nlearning_rate_rest = 1e-12\n";
  RunInputs inputs = tiny_inputs();
  inputs.stage_data[1] = testing::random_documents(4, inputs.teacher.config.vocab_size, 2);
  train_tiny(folder / "between", align + sft + align, std::move(inputs));
  train_tiny(folder / "without", align + align, tiny_inputs());
  const auto between = read_metrics(folder / "between" / "metrics.jsonl");
  const auto without = read_metrics(folder / "without" / "metrics.jsonl");
  EXPECT_NEAR(between[5]["loss"].get<double>() / without[3]["loss"].get<double>(), 1, 1e-4);
}

TEST(ChatStages, ATeacherOfAnotherShapeTeachesToo) {
  const testing::ScratchFolder folder;
  RunInputs inputs = testing::tiny_inputs_with_pairs(/*stage=*/1);
  inputs.teacher = testing::random_model(inputs.student.config.vocab_size, /*seed=*/9);
  ASSERT_NE(inputs.teacher.config.d_model, inputs.student.config.d_model);
  const RunSummary summary = train_tiny(
      folder / "run",
      std::string("[[stage]]\nkind = \"distill\"\nsteps = 60\nbatch_tokens = 128\ntrain = "
                  "\"all\"\nlearning_rate_rest = 1e-3\n") +
          testing::kDpo,
      std::move(inputs));
  EXPECT_LT(summary.stages[0].last_loss, 0.9 * summary.stages[0].first_loss);
  EXPECT_GT(*summary.stages[1].last.accuracy, 0.9);
}

}  // namespace
}  // namespace mambify
