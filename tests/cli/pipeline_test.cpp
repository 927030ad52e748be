// The whole path on a small random teacher: convert, synthesize, distill, evaluate, generate.
#include "cli/pipeline.h"

#include <ATen/Context.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/chat_template.h"

namespace mambify {
namespace {

using namespace testing;
using ::testing::HasSubstr;

// write_teacher's, but one that ends a turn at about every tenth token: the first dimension of its
// hidden states is nearly constant, and the output matrix uses it as a bias.
void write_talker(const fs::path& teacher, const fs::path& folder) {
  Model model = load_model(teacher);
  const Tokenizer tokenizer = Tokenizer::load(teacher);
  at::manual_seed(1);
  model.config.tie_embeddings = false;
  model.embedding.select(1, 0).fill_(30);
  model.final_norm.fill_(1);
  model.lm_head = at::randn(model.embedding.sizes()).mul_(0.05);
  const TokenId end = ChatTemplate::recognise(tokenizer).turn_end_ids(tokenizer).front();
  model.lm_head.select(0, end).select(0, 0).fill_(0.6);
  fs::create_directories(folder);
  save_model(model, folder);
  tokenizer.save(folder);
}

TEST_F(Pipeline, ConvertWritesAHybridCheckpoint) {
  ASSERT_EQ(converted_.exit_code, 0) << converted_.err;
  EXPECT_EQ(converted_.json()["attention_layers"], nlohmann::json({1}));
  const Outcome inspected = run({"inspect", path("student"), "--json"});
  ASSERT_EQ(inspected.exit_code, 0) << inspected.err;
  EXPECT_THAT(inspected.out, HasSubstr("mamba2"));
}

TEST_F(Pipeline, ConvertTakesSomeLayersForAShallowDraft) {
  const Outcome taken = run({"convert", "--teacher", path("student"), "--layers", "0,1", "--out",
                             path("shallow"), "--json"});
  ASSERT_EQ(taken.exit_code, 0) << taken.err;
  EXPECT_EQ(taken.json()["layers"], 2);
  EXPECT_EQ(taken.json()["attention_layers"], nlohmann::json({1}));
  EXPECT_EQ(taken.json()["converted_layers"], nlohmann::json::array());
  const Outcome drafted = run({"generate", "--model", path("student"), "--prompt", "one two",
                               "--max-tokens", "8", "--draft", path("shallow"), "--json"});
  EXPECT_EQ(drafted.exit_code, 0) << drafted.err;
  const Outcome none =
      run({"convert", "--teacher", path("student"), "--layers", "none", "--out", path("nothing")});
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_THAT(none.err, HasSubstr("--layers none"));
}

TEST_F(Pipeline, ConvertRefusesAFolderOfSomethingElse) {
  fs::create_directories(path("letters"));
  write_file_atomically(path("letters/a.txt"), "dear");
  const Outcome outcome = run({"convert", "--teacher", path("teacher"), "--out", path("letters")});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_EQ(read_text_file(path("letters/a.txt")), "dear");
}

TEST_F(Pipeline, ConvertOnAFullDiskLeavesNothingBehind) {
  const Outcome outcome = run({"convert", "--teacher", path("teacher"), "--out", path("full")}, "",
                              "ulimit -f 64; trap '' XFSZ;");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("full"));
  for (const auto& entry : fs::directory_iterator(scratch_->path())) {
    EXPECT_THAT(entry.path().filename().string(), ::testing::Not(HasSubstr("full")));
  }
}

TEST_F(Pipeline, DistillThenEvaluateThenGenerate) {
  write_file_atomically(path("recipe.toml"),
                        "[model]\nteacher = \"" + path("teacher") + "\"\nstudent = \"" +
                            path("student") + "\"\n[data]\nfiles = [\"" + path("data.jsonl") +
                            "\"]\nsequence_length = 32\n"
                            "[[stage]]\nkind = \"align\"\nsteps = 3\nbatch_tokens = 32\n"
                            "[[stage]]\nkind = \"distill\"\nsteps = 3\nbatch_tokens = 32\n"
                            "[run]\ndir = \"" +
                            path("run") + "\"\n");
  const Outcome distilled = run({"distill", path("recipe.toml"), "--json"});
  ASSERT_EQ(distilled.exit_code, 0) << distilled.err;
  EXPECT_EQ(distilled.json()["steps"], 6);
  for (const char* file : {"recipe.toml", "metrics.jsonl", "report.html", "final/tokenizer.json"}) {
    EXPECT_TRUE(fs::exists(fs::path(path("run")) / file)) << file;
  }

  const Outcome agreement = run({"eval", "agreement", "--model", path("run/final"), "--teacher",
                                 path("teacher"), "--data", path("data.jsonl"), "--json"});
  ASSERT_EQ(agreement.exit_code, 0) << agreement.err;
  EXPECT_GT(agreement.json()["kl"], 0.0);
  EXPECT_GT(agreement.json()["tokens"], 0);

  const std::vector<std::string> generate = {"generate", "--model",      path("run/final"),
                                             "--prompt", "Once upon",    "--max-tokens",
                                             "12",       "--ignore-eos", "--json"};
  const Outcome first = run(generate), second = run(generate);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(first.json()["ids"].size(), 12u);
  EXPECT_EQ(first.json()["finish_reason"], "length");
  EXPECT_EQ(first.json()["ids"], second.json()["ids"]);
}

TEST_F(Pipeline, AnUnknownKeyInARecipeIsNamed) {
  write_file_atomically(path("bad.toml"), "[model]\nteecher = \"x\"\n");
  const Outcome outcome = run({"distill", path("bad.toml")});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("teecher"));
  EXPECT_THAT(outcome.err, HasSubstr("bad.toml"));
}

TEST_F(Pipeline, SynthesizeWritesWhatDistillReads) {
  const Outcome outcome =
      run({"synthesize", "--teacher", path("teacher"), "--out", path("written.jsonl"), "--prompts",
           path("data.jsonl"), "--tokens", "40", "--max-length", "64", "--top-k", "50", "--json"});
  // The first line is a conversation, the second plain text, which becomes a question.
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_TRUE(fs::exists(path("written.jsonl")));
}

TEST_F(Pipeline, PairsOfSynthesizeAreWhatDpoReads) {
  write_talker(path("teacher"), path("talker"));
  ASSERT_EQ(run({"convert", "--teacher", path("talker"), "--attention-layers", "1", "--out",
                 path("talking-student")})
                .exit_code,
            0);
  const std::vector<std::string> pairs = {"synthesize",    "--teacher",
                                          path("teacher"), "--pairs",
                                          "--student",     path("talking-student"),
                                          "--out",         path("pairs.jsonl"),
                                          "--prompts",     path("data.jsonl"),
                                          "--tokens",      "400",
                                          "--max-length",  "64",
                                          "--top-k",       "50",
                                          "--json"};
  const Outcome written = run(pairs);
  ASSERT_EQ(written.exit_code, 0) << written.err;
  const int64_t count = written.json()["pairs"];
  EXPECT_GT(count, 0);
  const std::string text = read_text_file(path("pairs.jsonl"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), count);
  EXPECT_EQ(run(pairs).exit_code, 0);
  EXPECT_EQ(read_text_file(path("pairs.jsonl")), text);

  write_file_atomically(
      path("chat.toml"),
      "[model]\nteacher = \"" + path("talker") + "\"\nstudent = \"" + path("talking-student") +
          "\"\n[data]\nfiles = [\"" + path("data.jsonl") +
          "\"]\nsequence_length = 64\n"
          "[[stage]]\nkind = \"sft\"\nsteps = 2\nbatch_tokens = 32\n"
          "[[stage]]\nkind = \"dpo\"\nsteps = 2\nbatch_tokens = 128\nfiles = [\"" +
          path("pairs.jsonl") +
          "\"]\n"
          "[run]\ndir = \"" +
          path("chat-run") + "\"\n");
  const Outcome trained = run({"distill", path("chat.toml"), "--json"});
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_TRUE(trained.json()["stages"][0].contains("last_ce"));
  EXPECT_TRUE(trained.json()["stages"][1].contains("last_margin"));
  EXPECT_THAT(read_text_file(path("chat-run/report.html")), HasSubstr("reward of the chosen"));
}

TEST_F(Pipeline, PairsNeedAStudentAndAStudentPairs) {
  const std::vector<std::string> plain = {
      "synthesize", "--teacher", path("teacher"), "--out", path("none.jsonl"), "--tokens", "40"};
  for (const std::vector<std::string>& more : std::vector<std::vector<std::string>>{
           {"--pairs"},
           {"--student", path("student")},
           {"--pairs", "--student", path("student"), "--plain-share", "0.5"}}) {
    std::vector<std::string> arguments = plain;
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << more[0];
    EXPECT_THAT(outcome.err, HasSubstr("--pairs"));
  }
}

TEST_F(Pipeline, ChatAnswersFromAPipeAndKeepsItsCommands) {
  const Outcome outcome = run({"chat", "--model", path("teacher"), "--max-tokens", "5"},
                              "Hello\n/reset\nHello\n/exit\n");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_FALSE(outcome.out.empty());
}

TEST_F(Pipeline, APromptLongerThanTheContextIsRefused) {
  std::string prompt;
  for (int i = 0; i < 600; ++i) prompt += "word ";
  const Outcome outcome = run({"generate", "--model", path("teacher"), "--prompt", prompt});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("512"));
}

TEST_F(Pipeline, ScoreGivesOneNllPerPredictedToken) {
  write_file_atomically(path("ids.json"), "[1, 2, 3, 4, 5]");
  const Outcome outcome = run({"score", "--model", path("student"), "--ids-file", path("ids.json"),
                               "--logits-out", path("logits.safetensors"), "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.json()["nll"].size(), 4u);
  const TensorMap logits = open_safetensors(path("logits.safetensors"));
  EXPECT_EQ(logits.at("logits").shape, (std::vector<int64_t>{5, 3000}));
}

TEST_F(Pipeline, AnIdOutsideTheVocabularyIsNamed) {
  write_file_atomically(path("ids.json"), "[1, 99999]");
  const Outcome outcome =
      run({"score", "--model", path("student"), "--ids-file", path("ids.json")});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("99999"));
}

}  // namespace
}  // namespace mambify
