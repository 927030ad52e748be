// Speculative decoding and the benchmarks of decoding, as the program offers them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "cli/pipeline.h"

namespace mambify {
namespace {

using namespace testing;
using ::testing::HasSubstr;

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

}  // namespace
}  // namespace mambify
