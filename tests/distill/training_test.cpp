// Whole runs on the tiny model.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "devices.h"
#include "distill/metrics.h"
#include "distill/stages.h"
#include "distill/trainer.h"
#include "ops/cuda.h"
#include "tiny_run.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;
using testing::tiny_inputs;
using testing::train_tiny;

TEST(Training, AlignBringsEachMixerCloserToItsAttention) {
  const testing::ScratchFolder folder;
  const RunSummary summary =
      train_tiny(folder / "run", "[[stage]]\nkind = \"align\"\nsteps = 60\nbatch_tokens = 128\n",
                 tiny_inputs());
  ASSERT_EQ(summary.stages.size(), 1u);
  EXPECT_EQ(summary.stages[0].steps, 60);
  EXPECT_LT(summary.stages[0].last_loss, 0.7 * summary.stages[0].first_loss);
  const auto lines = read_metrics(folder / "run" / "metrics.jsonl");
  EXPECT_EQ(lines.back()["layers"].size(), 2u);
  EXPECT_LT(lines.back()["layers"][0], lines.front()["layers"][0]);
  EXPECT_LT(lines.back()["layers"][1], lines.front()["layers"][1]);
}

TEST(Training, AlignChangesMixersOnly) {
  const testing::ScratchFolder folder;
  const RunInputs inputs = tiny_inputs();
  Model before = clone(inputs.student);
  train_tiny(folder / "run", "[[stage]]\nkind = \"align\"\nsteps = 3\nbatch_tokens = 64\n",
             tiny_inputs());
  Model after = load_model(folder / "run" / "final");
  std::map<std::string, at::Tensor> old;
  for_each_parameter(before, [&](const std::string& name, at::Tensor& t) { old[name] = t; });
  for_each_parameter(after, [&](const std::string& name, at::Tensor& t) {
    const bool trained = name.starts_with("blocks.0.mixer.") || name.starts_with("blocks.2.mixer.");
    EXPECT_EQ(at::equal(t, old.at(name)), !trained) << name;
  });
}

TEST(Training, DistillLowersTheDivergenceFromTheTeacher) {
  const testing::ScratchFolder folder;
  const RunSummary summary =
      train_tiny(folder / "run",
                 "[[stage]]\nkind = \"distill\"\nsteps = 80\nbatch_tokens = 128\ntrain = \"all\"\n",
                 tiny_inputs());
  EXPECT_LT(summary.stages[0].last_loss, 0.8 * summary.stages[0].first_loss);
  EXPECT_NEAR(*summary.stages[0].last.kl, summary.stages[0].last_loss, 1e-6);
  EXPECT_GT(*summary.stages[0].last.agreement, 0);
}

TEST(Training, StepwiseReplacesAttentionInRounds) {
  const testing::ScratchFolder folder;
  train_tiny(folder / "run",
             "[[stage]]\nkind = \"stepwise\"\nsteps = 7\nbatch_tokens = 64\n"
             "keep_attention = [\"0,1\", \"1\"]\n",
             tiny_inputs({0, 1, 2}));
  const Model student = load_model(folder / "run" / "final");
  EXPECT_EQ(kind_of(student.blocks[0].mixer), MixerKind::mamba2);
  EXPECT_EQ(kind_of(student.blocks[1].mixer), MixerKind::attention);
  EXPECT_EQ(kind_of(student.blocks[2].mixer), MixerKind::mamba2);
  std::vector<int> rounds;
  for (const auto& line : read_metrics(folder / "run" / "metrics.jsonl")) {
    rounds.push_back(line["round"]);
  }
  EXPECT_EQ(rounds, (std::vector<int>{0, 0, 0, 0, 1, 1, 1}));
}

TEST(Training, StepwiseGoesOnFromWhatAlignHasFitted) {
  const testing::ScratchFolder folder;
  const std::string align = "[[stage]]\nkind = \"align\"\nsteps = 30\nbatch_tokens = 128\n";
  const std::string stepwise =
      "[[stage]]\nkind = \"stepwise\"\nsteps = 2\nbatch_tokens = 128\nlearning_rate = 1e-9\n"
      "keep_attention = [\"0,1\", \"1\"]\n";
  train_tiny(folder / "aligned", align + stepwise, tiny_inputs());
  train_tiny(folder / "fresh", stepwise, tiny_inputs());
  const Model student = load_model(folder / "aligned" / "final");
  EXPECT_EQ(kind_of(student.blocks[0].mixer), MixerKind::mamba2);
  EXPECT_EQ(kind_of(student.blocks[1].mixer), MixerKind::attention);
  EXPECT_EQ(kind_of(student.blocks[2].mixer), MixerKind::mamba2);
  // A round with the teacher's own attention in layer 0 is closer to the teacher than the next one
  // without, and what align did is not lost.
  const auto aligned = read_metrics(folder / "aligned" / "metrics.jsonl");
  const auto fresh = read_metrics(folder / "fresh" / "metrics.jsonl");
  const auto loss = [](const auto& line) { return line["loss"].template get<double>(); };
  EXPECT_LT(loss(aligned[30]), loss(aligned[31]));
  EXPECT_LT(loss(aligned[31]), loss(fresh[1]));
}

TEST(Training, EachStageMayConvertTheStudentFurtherAndLeaveItBehind) {
  const testing::ScratchFolder folder;
  const std::string stages =
      "[[stage]]\nkind = \"distill\"\nsteps = 2\nbatch_tokens = 64\nkeep_attention = "
      "[\"0,1\"]\ntrain = \"all\"\nsave = \"two\"\n"
      "[[stage]]\nkind = \"align\"\nsteps = 2\nbatch_tokens = 64\nkeep_attention = [\"1\"]\n"
      "train = \"new\"\n"
      "[[stage]]\nkind = \"distill\"\nsteps = 2\nbatch_tokens = 64\nsave = \"one\"\n"
      "[[stage]]\nkind = \"stepwise\"\nsteps = 2\nbatch_tokens = 64\nkeep_attention = "
      "[\"none\"]\n";
  train_tiny(folder / "run", stages, tiny_inputs({0, 1, 2}));
  const auto attention_layers = [&](const char* name) {
    return load_model(folder / "run" / name).config.count(MixerKind::attention);
  };
  EXPECT_EQ(attention_layers("two"), 2);
  EXPECT_EQ(attention_layers("one"), 1);
  EXPECT_EQ(attention_layers("final"), 0);
  // The second stage fits the layer that it converts, and leaves the one before as it is.
  const auto lines = read_metrics(folder / "run" / "metrics.jsonl");
  EXPECT_EQ(lines[2]["layers"].size(), 1u);

  train_tiny(folder / "short", stages, tiny_inputs({0, 1, 2}), {"stage.2.learning_rate=1e-12"});
  const auto in_proj = [&](const char* name) {
    const Model model = load_model(folder / "short" / name);
    return std::get<Mamba2>(model.blocks[2].mixer).in_proj;
  };
  EXPECT_LT((in_proj("two") - in_proj("one")).abs().max().item<float>(), 1e-9);
}

TEST(Training, AccumulationDoesNotChangeTheStep) {
  const testing::ScratchFolder folder;
  const std::string stages = "[[stage]]\nkind = \"distill\"\nsteps = 4\nbatch_tokens = 128\n";
  // Documents no longer than a part's share, so that parts cut them alike, would be needed for
  // equal bits; the losses of whole documents are compared instead.
  RunInputs whole = tiny_inputs(), parts = tiny_inputs();
  for (RunInputs* inputs : {&whole, &parts}) {
    for (Document& document : inputs->data.documents) {
      document.ids.resize(16, 7);
      document.counts.resize(16, true);
    }
  }
  train_tiny(folder / "whole", stages, std::move(whole));
  train_tiny(folder / "parts", stages, std::move(parts), {"stage.0.accumulation=4"});
  const auto one = read_metrics(folder / "whole" / "metrics.jsonl");
  const auto four = read_metrics(folder / "parts" / "metrics.jsonl");
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_NEAR(one[i]["loss"].get<double>(), four[i]["loss"].get<double>(), 1e-4);
    EXPECT_NEAR(one[i]["gradient_norm"].get<double>() / four[i]["gradient_norm"].get<double>(), 1,
                1e-3);
  }
}

TEST(Training, ActivationCheckpointingChangesNoBit) {
  const testing::ScratchFolder folder;
  for (const char* set : {"mixers", "all"}) {
    const std::string stages =
        std::string("[[stage]]\nkind = \"distill\"\nsteps = 3\nbatch_tokens = 64\ntrain = \"") +
        set + "\"\n";
    const fs::path plain = folder / (std::string(set) + "-plain");
    const fs::path saving = folder / (std::string(set) + "-saving");
    train_tiny(plain, stages, tiny_inputs());
    train_tiny(saving, stages, tiny_inputs(), {"run.activation_checkpointing=true"});
    EXPECT_EQ(read_text_file(plain / "final" / "model.safetensors"),
              read_text_file(saving / "final" / "model.safetensors"))
        << set;
  }
}

TEST(Training, Bf16TrainsFp32Weights) {
  const testing::ScratchFolder folder;
  const RunSummary summary =
      train_tiny(folder / "run", "[[stage]]\nkind = \"align\"\nsteps = 40\nbatch_tokens = 128\n",
                 tiny_inputs(), {"run.dtype=bf16"});
  EXPECT_LT(summary.stages[0].last_loss, 0.9 * summary.stages[0].first_loss);
  // Master weights use bits that bf16 does not have.
  const Model student = load_model(folder / "run" / "final");
  const at::Tensor weight = std::get<Mamba2>(student.blocks[0].mixer).in_proj;
  EXPECT_FALSE(at::equal(weight, weight.to(at::kBFloat16).to(at::kFloat)));
}

TEST(Training, LogsEveryFewStepsAndTheLast) {
  const testing::ScratchFolder folder;
  train_tiny(folder / "run", "[[stage]]\nkind = \"align\"\nsteps = 8\nbatch_tokens = 64\n",
             tiny_inputs(), {"run.log_every=3"});
  std::vector<int> steps;
  for (const auto& line : read_metrics(folder / "run" / "metrics.jsonl")) {
    steps.push_back(line["step"]);
  }
  EXPECT_EQ(steps, (std::vector<int>{3, 6, 8}));
}

TEST(Training, ARunLimitedInMinutesEnds) {
  const testing::ScratchFolder folder;
  const RunSummary summary = train_tiny(
      folder / "run", "[[stage]]\nkind = \"align\"\nminutes = 0.005\nbatch_tokens = 64\n",
      tiny_inputs());
  EXPECT_GT(summary.steps, 0);
}

TEST(Training, AStepThatIsNotFiniteIsSkippedAndCounted) {
  const testing::ScratchFolder folder;
  RunInputs inputs = tiny_inputs();
  // One token of the vocabulary is poisoned: steps that meet it are not finite.
  inputs.teacher.embedding[200].fill_(std::numeric_limits<float>::infinity());
  inputs.teacher.lm_head = inputs.teacher.embedding;
  inputs.data = testing::random_documents(20, 200, /*seed=*/1);
  inputs.data.documents[3].ids[0] = 200;
  const RunSummary summary =
      train_tiny(folder / "run", "[[stage]]\nkind = \"align\"\nsteps = 20\nbatch_tokens = 64\n",
                 std::move(inputs));
  EXPECT_GT(summary.skipped, 0);
  EXPECT_LT(summary.skipped, 20);
  Model student = load_model(folder / "run" / "final");
  const at::Tensor weight = std::get<Mamba2>(student.blocks[0].mixer).in_proj;
  EXPECT_TRUE(weight.isfinite().all().item<bool>());
}

TEST(Training, StopsAfterAFewSuchStepsInARow) {
  const testing::ScratchFolder folder;
  RunInputs inputs = tiny_inputs();
  std::get<Mamba2>(inputs.student.blocks[0].mixer)
      .in_proj.fill_(std::numeric_limits<float>::quiet_NaN());
  try {
    train_tiny(folder / "run", "[[stage]]\nkind = \"align\"\nsteps = 20\nbatch_tokens = 64\n",
               std::move(inputs), {"run.max_skipped=3"});
    FAIL() << "a run on NaN weights ended well";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("3 steps in a row"));
    EXPECT_THAT(error.what(), HasSubstr("align"));
  }
  EXPECT_FALSE(fs::exists(folder / "run" / "final"));
}

TEST(Training, AnExistingRunIsNotOverwritten) {
  const testing::ScratchFolder folder;
  const std::string stages = "[[stage]]\nkind = \"align\"\nsteps = 1\nbatch_tokens = 64\n";
  train_tiny(folder / "run", stages, tiny_inputs());
  EXPECT_THROW(train_tiny(folder / "run", stages, tiny_inputs()), Error);
}

TEST(Training, AlignNeedsAConvertedLayer) {
  const testing::ScratchFolder folder;
  EXPECT_THROW(
      train_tiny(folder / "run", "[[stage]]\nkind = \"align\"\nsteps = 1\nbatch_tokens = 64\n",
                 tiny_inputs({0, 1, 2})),
      Error);
}

TEST(Training, TheReportStandsAlone) {
  const testing::ScratchFolder folder;
  train_tiny(folder / "run", testing::kAlignThenDistill, tiny_inputs());
  const std::string html = read_text_file(folder / "run" / "report.html");
  EXPECT_THAT(html, HasSubstr("<svg"));
  EXPECT_THAT(html, HasSubstr("KL to the teacher"));
  EXPECT_THAT(html, HasSubstr("kind = &quot;align&quot;"));
  EXPECT_EQ(html.find("http"), std::string::npos);
  EXPECT_EQ(html.find("<script"), std::string::npos);
}

// A test for each other device than the CPU; the name is the device's.
class TrainingOn : public ::testing::TestWithParam<std::string> {};

TEST_P(TrainingOn, TenStepsHaveTheLossesOfTheCpu) {
  const testing::ScratchFolder folder;
  const std::string stages =
      "[[stage]]\nkind = \"align\"\nsteps = 10\nbatch_tokens = 128\n"
      "[[stage]]\nkind = \"distill\"\nsteps = 10\nbatch_tokens = 128\naccumulation = 2\n"
      "train = \"all\"\nce_weight = 0.1\n"
      "[[stage]]\nkind = \"sft\"\nsteps = 5\nbatch_tokens = 128\nlearning_rate = 1e-4\n"
      "[[stage]]\nkind = \"dpo\"\nsteps = 5\nbatch_tokens = 256\nlearning_rate = 1e-4\n"
      "files = [\"pairs\"]\n";
  for (const MixerKind mixer : {MixerKind::mamba2, MixerKind::mamba1}) {
    const std::string name = mixer_name(mixer);
    const auto inputs = [&] { return testing::tiny_inputs_with_pairs(/*stage=*/3, {1}, mixer); };
    train_tiny(folder / ("cpu-" + name), stages, inputs());
    train_tiny(folder / ("device-" + name), stages, inputs(), {}, load_torch_cuda(0));
    const auto expected = read_metrics(folder / ("cpu-" + name) / "metrics.jsonl");
    const auto found = read_metrics(folder / ("device-" + name) / "metrics.jsonl");
    ASSERT_EQ(found.size(), 30u);
    for (size_t i = 0; i < found.size(); ++i) {
      for (const char* key : {"loss", "gradient_norm"}) {
        EXPECT_NEAR(found[i][key].get<double>() / expected[i][key].get<double>(), 1, 1e-3)
            << key << " of line " << i << ", " << name;
      }
    }
  }
}

TEST_P(TrainingOn, TheSameSeedEndsInTheSameBits) {
  const testing::ScratchFolder folder;
  const std::string stages =
      std::string(
          "[[stage]]\nkind = \"distill\"\nsteps = 20\nbatch_tokens = 256\ntrain = "
          "\"all\"\n") +
      testing::kDpo;
  for (const MixerKind mixer : {MixerKind::mamba2, MixerKind::mamba1}) {
    const std::string name = mixer_name(mixer);
    for (const std::string run : {"a", "b"}) {
      train_tiny(folder / (run + name), stages,
                 testing::tiny_inputs_with_pairs(/*stage=*/1, {1}, mixer), {"run.dtype=bf16"},
                 load_torch_cuda(0));
    }
    EXPECT_EQ(read_text_file(folder / ("a" + name) / "final" / "model.safetensors"),
              read_text_file(folder / ("b" + name) / "final" / "model.safetensors"));
  }
}

std::vector<std::string> accelerators() {
  std::vector<std::string> devices = testing::devices();
  std::erase(devices, "cpu");
  return devices;
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TrainingOn);
INSTANTIATE_TEST_SUITE_P(Devices, TrainingOn, ::testing::ValuesIn(accelerators()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace mambify
