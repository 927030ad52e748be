// From files on the disk to a student on the disk.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "decode/draft_vocabulary.h"
#include "model/load.h"
#include "testing.h"
#include "tiny_run.h"

namespace mambify {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class InputsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write_model(folder_ / "teacher", testing::fixtures() / "llama3-style-tokenizer");
    std::ofstream(folder_ / "data.jsonl")
        << R"({"messages": [{"role": "user", "content": "What is the tallest mountain?"},)"
        << R"( {"role": "assistant", "content": "Mount Everest, between Nepal and China."}]})"
        << "\n"
        << R"({"text": "A river is a natural stream of water."})"
        << "\n";
  }

  // The tiny Llama with an embedding for the tokenizer's vocabulary.
  static void write_model(const fs::path& folder, const fs::path& tokenizer_folder) {
    const Tokenizer tokenizer = Tokenizer::load(tokenizer_folder);
    Model model = load_model(testing::fixtures() / "tiny-llama");
    model.config.vocab_size = tokenizer.vocab_size();
    const int64_t width = model.config.d_model;
    model.embedding = at::sin(at::arange(tokenizer.vocab_size() * width, at::kFloat))
                          .view({tokenizer.vocab_size(), width})
                          .mul_(0.05);
    model.lm_head = model.embedding;
    fs::create_directories(folder);
    save_model(model, folder);
    tokenizer.save(folder);
  }

  Recipe recipe(const std::vector<std::string>& overrides = {}) const {
    const std::string text =
        "[model]\nteacher = \"" + (folder_ / "teacher").string() +
        "\"\nkeep_attention = \"1/3\"\n[data]\nfiles = [\"" + (folder_ / "data.jsonl").string() +
        "\"]\n[[stage]]\nkind = \"align\"\nsteps = 2\nbatch_tokens = 32\n[run]\ndir = \"" +
        (folder_ / "run").string() + "\"\n";
    return parse_recipe(text, "recipe.toml", overrides);
  }

  std::string message_of(const std::vector<std::string>& overrides) const {
    try {
      load_inputs(recipe(overrides));
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  testing::ScratchFolder folder_;
};

TEST_F(InputsTest, ARunLeavesAStudentWithItsTokenizer) {
  const RunSummary summary = run_recipe(recipe(), {});
  EXPECT_EQ(summary.steps, 2);
  const Model student = load_model(summary.final_model);
  EXPECT_EQ(student.config.layers,
            (std::vector{MixerKind::mamba2, MixerKind::mamba2, MixerKind::attention}));
  EXPECT_FALSE(student.config.mamba2.gate);  // the neutral start, since the recipe names none
  EXPECT_TRUE(student.config.mamba2.rotary);
  EXPECT_EQ(Tokenizer::load(summary.final_model).vocabulary_hash(),
            Tokenizer::load(folder_ / "teacher").vocabulary_hash());
  EXPECT_EQ(read_text_file(folder_ / "run" / "recipe.toml"), recipe().text);
}

TEST_F(InputsTest, WhatIsConvertedLaterIsLikeWhatWasConvertedBefore) {
  for (const std::string start : {"published", "neutral"}) {
    const RunSummary first =
        run_recipe(recipe({"model.start=" + start, "run.dir=" + (folder_ / start).string()}), {});
    const RunSummary second =
        run_recipe(recipe({"model.keep_attention=", "model.student=" + first.final_model.string(),
                           "stage.0.keep_attention=[\"none\"]",
                           "run.dir=" + (folder_ / start).string() + "2"}),
                   {});
    const ModelConfig config = load_model(second.final_model).config;
    EXPECT_EQ(config.count(MixerKind::attention), 0);
    EXPECT_EQ(config.mamba2.gate, start == "published");
    EXPECT_EQ(config.mamba2.rotary, start == "neutral");
  }
}

TEST_F(InputsTest, AFinishedStudentLearnsOn) {
  const RunSummary first = run_recipe(recipe(), {});
  const RunSummary second =
      run_recipe(recipe({"model.keep_attention=", "model.student=" + first.final_model.string(),
                         "stage.0.kind=distill", "run.dir=" + (folder_ / "second").string()}),
                 {});
  EXPECT_EQ(second.stages[0].kind, "distill");
  EXPECT_TRUE(second.stages[0].last.kl.has_value());
}

TEST_F(InputsTest, TheChatRecipeReadsWhatEachStageWants) {
  std::ofstream(folder_ / "pairs.jsonl")
      << R"({"prompt": "What is a river?", "chosen": "A stream of water.", "rejected": "No."})"
      << "\n"
      << R"({"prompt": "Same?", "chosen": "Yes.", "rejected": "Yes."})"
      << "\n";
  const std::string text = recipe().text +
                           "[[stage]]\nkind = \"sft\"\nsteps = 2\nbatch_tokens = 32\n"
                           "[[stage]]\nkind = \"dpo\"\nsteps = 2\nbatch_tokens = 128\nfiles = [\"" +
                           (folder_ / "pairs.jsonl").string() + "\"]\n";
  const Recipe chat =
      parse_recipe(text, "recipe.toml", {"data.loss_on=all", "data.sequence_length=64"});
  const RunInputs inputs = load_inputs(chat);
  // sft counts the assistant's tokens of the shared files, the other stage all.
  const auto& sft = std::get<Dataset>(inputs.stage_data.at(1));
  EXPECT_EQ(sft.tokens(), inputs.data.tokens());
  EXPECT_LT(sft.counted_tokens(), inputs.data.counted_tokens());
  EXPECT_EQ(std::get<PairDataset>(inputs.stage_data.at(2)).pairs.size(), 1u);
  const RunSummary summary = run_recipe(chat, {});
  ASSERT_EQ(summary.stages.size(), 3u);
  EXPECT_TRUE(summary.stages[1].last.ce.has_value());
  EXPECT_TRUE(summary.stages[2].last.margin.has_value());
}

TEST_F(InputsTest, ATeacherThatNoStageAsksIsNotRead) {
  const RunSummary first = run_recipe(recipe(), {});
  const std::vector<std::string> sft = {
      "model.keep_attention=", "model.student=" + first.final_model.string(), "stage.0.kind=sft"};
  EXPECT_TRUE(load_inputs(recipe(sft)).teacher.blocks.empty());
  EXPECT_FALSE(load_inputs(recipe()).teacher.blocks.empty());
}

TEST_F(InputsTest, AnUntiedStudentLearnsAnOutputMatrixOfItsOwn) {
  const RunInputs inputs = load_inputs(recipe({"model.untie_output=true"}));
  EXPECT_FALSE(inputs.student.lm_head.is_same(inputs.student.embedding));
  EXPECT_TRUE(at::equal(inputs.student.lm_head, inputs.student.embedding));
  EXPECT_TRUE(inputs.teacher.lm_head.is_same(inputs.teacher.embedding));

  const RunSummary summary =
      run_recipe(recipe({"model.untie_output=true", "stage.0.kind=distill", "stage.0.train=all",
                         "stage.0.freeze=['embedding']"}),
                 {});
  const Model student = load_model(summary.final_model);
  EXPECT_FALSE(student.config.tie_embeddings);
  EXPECT_TRUE(at::equal(student.embedding, inputs.teacher.embedding));
  EXPECT_FALSE(at::equal(student.lm_head, student.embedding));
}

// Of the tokens that the loss counts: the assistant's in conversations.
TEST_F(InputsTest, ADraftKeepsTheMostFrequentTokens) {
  const Tokenizer tokenizer = Tokenizer::load(folder_ / "teacher");
  std::ofstream(folder_ / "data.jsonl")
      << R"({"messages": [{"role": "user", "content": "x x x x x x"},)"
      << R"( {"role": "assistant", "content": "a b a c a b"}]})"
      << "\n";
  std::vector<TokenId> expected = tokenizer.encode(" a b");
  ASSERT_EQ(expected.size(), 2u);
  expected.insert(expected.end(), tokenizer.stop_ids().begin(), tokenizer.stop_ids().end());
  std::ranges::sort(expected);
  const RunSummary summary =
      run_recipe(recipe({fmt::format("model.draft_vocabulary={}", expected.size())}), {});
  EXPECT_EQ(
      read_draft_vocabulary(summary.final_model / kDraftVocabularyFile, tokenizer.vocab_size()),
      expected);
  const RunSummary without = run_recipe(recipe({"run.dir=" + (folder_ / "without").string()}), {});
  EXPECT_FALSE(fs::exists(without.final_model / kDraftVocabularyFile));
}

TEST_F(InputsTest, PairsAloneGiveADraftNoVocabulary) {
  std::ofstream(folder_ / "pairs.jsonl")
      << R"({"prompt": "What is a river?", "chosen": "A stream of water.", "rejected": "No."})"
      << "\n";
  EXPECT_THAT(
      message_of({"model.draft_vocabulary=3", "stage.0.kind=dpo", "stage.0.batch_tokens=1024",
                  "stage.0.files=['" + (folder_ / "pairs.jsonl").string() + "']"}),
      HasSubstr("draft_vocabulary"));
}

TEST_F(InputsTest, AnotherVocabularyIsRefused) {
  const fs::path other = folder_ / "other-tokenizer";
  fs::copy(testing::fixtures() / "llama3-style-tokenizer", other);
  nlohmann::json tokenizer = nlohmann::json::parse(read_text_file(other / "tokenizer.json"));
  nlohmann::json added = tokenizer["added_tokens"].back();
  added["id"] = tokenizer["model"]["vocab"].size();
  added["content"] = "<|one_more|>";
  tokenizer["added_tokens"].push_back(added);
  fs::permissions(other / "tokenizer.json", fs::perms::owner_all);
  write_file_atomically(other / "tokenizer.json", tokenizer.dump());
  write_model(folder_ / "student", other);
  EXPECT_THAT(
      message_of({"model.keep_attention=", "model.student=" + (folder_ / "student").string()}),
      HasSubstr("vocabulary"));
}

TEST_F(InputsTest, WhatIsMissingIsNamed) {
  EXPECT_THAT(message_of({"model.teacher=/nowhere/teacher"}), HasSubstr("/nowhere/teacher"));
  EXPECT_THAT(message_of({"data.files=['/nowhere/data.jsonl']"}), HasSubstr("/nowhere/data.jsonl"));
  EXPECT_THAT(message_of({"model.keep_attention=7,8"}), HasSubstr("keep_attention of [model]"));
  EXPECT_THAT(message_of({"model.mixer=mamba3"}), HasSubstr("[model]"));
  EXPECT_THAT(message_of({"data.chat_template=unknown"}), HasSubstr("unknown"));
  const std::string text = (folder_ / "data.jsonl").string();
  EXPECT_THAT(
      message_of({"stage.0.kind=dpo", "data.sequence_length=16", "stage.0.files=['" + text + "']"}),
      AllOf(HasSubstr("data.jsonl:1"), HasSubstr("\"chosen\"")));
}

}  // namespace
}  // namespace mambify
