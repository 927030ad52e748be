// The whole path on a small random teacher: convert, synthesize, distill, evaluate, generate.
#include <ATen/Context.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "cli/program.h"
#include "cli/small_teacher.h"
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

class Pipeline : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = std::make_unique<ScratchFolder>();
    write_teacher(path("teacher"));
    write_file_atomically(
        path("data.jsonl"),
        R"({"messages": [{"role": "user", "content": "Count to three."}, {"role": "assistant", "content": "One, two, three."}]})"
        "\n"
        R"({"text": "The quick brown fox jumps over the lazy dog, again and again."})"
        "\n");
    converted_ = run({"convert", "--teacher", path("teacher"), "--attention-layers", "1", "--out",
                      path("student"), "--json"});
  }
  static void TearDownTestSuite() { scratch_.reset(); }

  static std::string path(const std::string& name) { return *scratch_ / name; }

  static std::unique_ptr<ScratchFolder> scratch_;
  static Outcome converted_;
};

std::unique_ptr<ScratchFolder> Pipeline::scratch_;
Outcome Pipeline::converted_;

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

TEST_F(Pipeline, DraftsChangeNoToken) {
  const std::vector<std::string> generate = {"generate",
                                             "--model",
                                             path("student"),
                                             "--prompt",
                                             "one two one two one two",
                                             "--seed",
                                             "4",
                                             "--max-tokens",
                                             "40",
                                             "--ignore-eos",
                                             "--json",
                                             "--top-k",
                                             "3",
                                             "--temperature",
                                             "0.7"};
  const Outcome plain = run(generate);
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_EQ(plain.json()["speculation"]["drafted"], 0);
  for (const std::string& draft :
       {std::string("ngram"), std::string("self"), path("student"), path("teacher")}) {
    std::vector<std::string> arguments = generate;
    arguments.insert(arguments.end(), {"--draft", draft, "--draft-length", "3"});
    const Outcome drafted = run(arguments);
    ASSERT_EQ(drafted.exit_code, 0) << drafted.err;
    EXPECT_EQ(drafted.json()["ids"], plain.json()["ids"]) << draft;
    EXPECT_EQ(drafted.json()["text"], plain.json()["text"]) << draft;
    if (draft == "ngram") continue;
    EXPECT_GT(drafted.json()["speculation"]["drafted"], 0);
    EXPECT_GT(drafted.json()["speculation"]["drafting"], 0);
    EXPECT_LE(drafted.json()["speculation"]["drafting"], drafted.json()["speculation"]["cycles"]);
    EXPECT_LT(drafted.json()["speculation"]["cycles"], 40);
  }
  std::vector<std::string> adapted = generate;
  adapted.insert(adapted.end(), {"--draft", path("teacher"), "--draft-weights", "native"});
  EXPECT_EQ(run(adapted).json()["ids"], plain.json()["ids"]);

  std::vector<std::string> by_rejection = generate;
  by_rejection.insert(by_rejection.end(), {"--draft", path("student"), "--draft-length", "3",
                                           "--accept", "distribution"});
  const Outcome once = run(by_rejection), again = run(by_rejection);
  ASSERT_EQ(once.exit_code, 0) << once.err;
  EXPECT_EQ(once.json()["ids"], again.json()["ids"]);
  EXPECT_GT(once.json()["speculation"]["accepted"], 0);
}

// The set that a draft's folder has, another one, and none.
TEST_F(Pipeline, ADraftGuessesAmongTheTokensThatItIsGiven) {
  const std::vector<std::string> generate = {"generate", "--model",         path("student"),
                                             "--prompt", "one two one two", "--max-tokens",
                                             "30",       "--ignore-eos",    "--json",
                                             "--draft",  path("guessing"),  "--draft-length",
                                             "3",        "--draft-weights", "native"};
  const auto run_with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = generate;
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  };
  fs::copy(path("student"), path("guessing"));
  const Outcome all = run_with({});
  ASSERT_EQ(all.exit_code, 0) << all.err;
  const nlohmann::json ids = all.json()["ids"];
  const auto accepted = [&](const Outcome& outcome) {
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.json()["ids"], ids);
    return outcome.json()["speculation"]["accepted"].get<int64_t>();
  };
  EXPECT_GT(accepted(all), 0);
  // What is never drawn, and what is.
  int64_t never = 0;
  const auto drawn = ids.get<std::set<int64_t>>();
  while (drawn.contains(never)) ++never;
  const auto set = [](const nlohmann::json& tokens) {
    return nlohmann::json{{"tokens", tokens}}.dump();
  };
  write_file_atomically(path("guessing/draft_vocabulary.json"), set({never}));
  write_file_atomically(path("drawn.json"), set(drawn));
  EXPECT_EQ(accepted(run_with({})), 0);
  EXPECT_EQ(accepted(run_with({"--draft-vocabulary", path("drawn.json")})), accepted(all));
  EXPECT_EQ(accepted(run_with({"--draft-vocabulary", "all"})), accepted(all));

  write_file_atomically(path("drawn.json"), set({1, 1}));
  const Outcome doubled = run_with({"--draft-vocabulary", path("drawn.json")});
  EXPECT_EQ(doubled.exit_code, 1);
  EXPECT_THAT(doubled.err, HasSubstr("drawn.json"));
}

TEST_F(Pipeline, DraftOptionsThatMakeNoSenseAreUsageErrors) {
  const std::vector<std::string> generate = {"generate", "--model", path("student"), "--prompt",
                                             "x"};
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{"--draft", "ngram", "--draft-length", "16"},
        {"--draft", "ngram", "--draft-length", "many"},
        {"--draft", "ngram", "--accept", "often"},
        {"--draft", "ngram", "--draft-weights", "int3"},
        {"--draft", "ngram", "--draft-vocabulary", "all"},
        {"--draft", "ngram", "--draft-min-p", "0.5"},
        {"--draft", path("student"), "--draft-min-p", "1.5"},
        {"--draft", path("student"), "--draft-min-p", "often"},
        {"--draft-min-p", "0.5"},
        {"--draft-vocabulary", "all"},
        {"--draft-length", "3"},
        {"--accept", "distribution"}}) {
    std::vector<std::string> arguments = generate;
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << more[0] << " " << more.back();
    EXPECT_THAT(outcome.err, HasSubstr(more[more.size() - 2]));
  }
}

TEST_F(Pipeline, ADraftWithAnotherVocabularyIsRefused) {
  write_teacher(path("other"));
  nlohmann::json tokenizer = nlohmann::json::parse(read_text_file(path("other/tokenizer.json")));
  auto& vocab = tokenizer["model"]["vocab"];
  std::swap(vocab["a"], vocab["b"]);
  write_file_atomically(path("other/tokenizer.json"), tokenizer.dump());
  const Outcome outcome =
      run({"generate", "--model", path("student"), "--prompt", "x", "--draft", path("other")});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("other"));
}

TEST_F(Pipeline, BenchSpeculateMeasuresEachDraftLength) {
  const Outcome outcome =
      run({"bench", "speculate", "--model", path("student"), "--tokens", "12", "--context", "8",
           "--runs", "1", "--draft-lengths", "2,5", "--acceptance", "1", "--batch", "2", "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::json rows = outcome.json()["speculation"];
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1]["draft_length"], 5);
  EXPECT_EQ(rows[1]["acceptance"], 1.0);
  EXPECT_EQ(rows[1]["tokens_per_cycle"], 6.0);
}

TEST_F(Pipeline, BenchSpeculateCountsTheTimeOfADraft) {
  const auto bench = [&](const std::string& draft) {
    return run({"bench", "speculate", "--model", path("student"), "--draft", draft, "--tokens",
                "12", "--context", "8", "--runs", "1", "--draft-lengths", "3", "--acceptance", "1",
                "--json"});
  };
  const Outcome outcome = bench(path("student"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::json row = outcome.json()["speculation"][0];
  EXPECT_EQ(row["tokens_per_cycle"], 4.0);
  EXPECT_TRUE(row.contains("cycle_over_plain_step"));
  write_file_atomically(path("other.toml"),
                        "architecture = \"mamba1\"\nvocab_size = 7\n"
                        "d_model = 16\nn_layer = 1\n");
  EXPECT_THAT(bench(path("other.toml")).err, HasSubstr("vocabulary of 7 tokens"));
}

TEST_F(Pipeline, BenchDecodeReadsFewerBytesOfInt8Weights) {
  const auto weight_bytes = [&](const char* format) {
    const Outcome outcome = run({"bench", "decode", "--model", path("student"), "--weights", format,
                                 "--tokens", "4", "--context", "8", "--runs", "1", "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.json()["weights"], format);
    return outcome.json()["weight_bytes"].get<int64_t>();
  };
  EXPECT_LT(weight_bytes("int8"), weight_bytes("native") / 2);
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
