// Measurements of a small hybrid beside its teacher, and the report made of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "cli/program.h"
#include "cli/small_teacher.h"

namespace mambify {
namespace {

using namespace testing;
using nlohmann::json;
using ::testing::HasSubstr;

class Eval : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = std::make_unique<ScratchFolder>();
    write_teacher(path("teacher"));
    const Outcome converted = run({"convert", "--teacher", path("teacher"), "--attention-layers",
                                   "1", "--out", path("student")});
    ASSERT_EQ(converted.exit_code, 0) << converted.err;
    std::string lines, text;
    for (int i = 0; i < 40; ++i) text += "A river is a natural stream of water. ";
    for (int i = 0; i < 3; ++i) lines += json{{"text", text.substr(0, 200 + 40 * i)}}.dump() + "\n";
    write_file_atomically(path("data.jsonl"), lines);
    write_file_atomically(path("text.txt"), text);
    std::string items;
    for (int i = 0; i < 4; ++i) {
      items += json{{"query", "Is it?"}, {"choices", {"Yes", "No"}}, {"gold", i % 2}}.dump() + "\n";
    }
    write_file_atomically(path("items.jsonl"), items);
    write_file_atomically(
        path("tasks.toml"),
        "[[task]]\nname = \"yes_no\"\nfile = \"items.jsonl\"\nkind = \"choice\"\n");
  }
  static void TearDownTestSuite() { scratch_.reset(); }

  static std::string path(const std::string& name) { return *scratch_ / name; }

  // Runs a sub-verb of eval on student and teacher; its JSON is also in NAME.json.
  static json measure(const std::string& kind, std::vector<std::string> more) {
    more.insert(more.begin(),
                {"eval", kind, "--teacher", path("teacher"), "--threads", "1", "--json"});
    if (kind != "sensitivity") more.insert(more.end(), {"--model", path("student")});
    const Outcome outcome = run(more);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    write_file_atomically(path(kind + ".json"), outcome.out);
    return outcome.json();
  }

  static std::unique_ptr<ScratchFolder> scratch_;
};

std::unique_ptr<ScratchFolder> Eval::scratch_;

TEST_F(Eval, EveryResultTellsItsOriginAndTheReportShowsThemAll) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> kinds = {
      {"perplexity", {"--text-file", path("text.txt"), "--window", "64"}},
      {"agreement", {"--data", path("data.jsonl"), "--greedy-tokens", "8"}},
      {"tasks", {"--tasks", path("tasks.toml")}},
      {"sensitivity", {"--data", path("data.jsonl")}},
      {"needle", {"--lengths", "160", "--depths", "0.5", "--trials", "2", "--plain"}}};
  std::vector<std::string> report = {"eval", "report", "--out", path("report.html")};
  for (const auto& [kind, options] : kinds) {
    const json about = measure(kind, options)["about"];
    EXPECT_EQ(about["kind"], kind);
    EXPECT_EQ(about["teacher"], path("teacher"));
    EXPECT_EQ(about["command"][1], "eval");
    EXPECT_EQ(about["command"][2], kind);
    EXPECT_TRUE(about["version"].is_string());
    report.push_back(path(kind + ".json"));
  }
  const Outcome outcome = run(report);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const std::string page = read_text_file(path("report.html"));
  for (const char* part : {"perplexity, text.txt", "KL to the teacher, data.jsonl", "yes_no acc",
                           "keys found", "each layer alone", "teacher</span> (teacher)"}) {
    EXPECT_THAT(page, HasSubstr(part));
  }
}

TEST_F(Eval, AReportOfAnotherFileIsRefused) {
  const Outcome outcome =
      run({"eval", "report", path("data.jsonl"), "--out", path("no-report.html")});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("data.jsonl"));
  EXPECT_FALSE(fs::exists(path("no-report.html")));
}

TEST_F(Eval, NeedleGoesBeyondThePositionsAndSaysSo) {
  const json result =
      measure("needle", {"--lengths", "200,600", "--depths", "0,1", "--trials", "2", "--batch", "3",
                         "--training-length", "300", "--likelihood", "--candidates", "4",
                         "--key-digits", "3", "--html", path("needle.html")});
  EXPECT_EQ(result["prompt"], "chat");
  EXPECT_EQ(result["cells"].size(), 4u);
  EXPECT_FALSE(result["cells"][0].contains("beyond_positions"));
  EXPECT_EQ(result["cells"][3]["beyond_positions"], true);  // of 512
  EXPECT_GT(result["cells"][3]["prompt_tokens"], 560);
  EXPECT_LE(result["cells"][3]["prompt_tokens"], 600);
  EXPECT_EQ(result["within_training_length"]["n"], 4);
  EXPECT_EQ(result["teacher"]["overall"]["n"], 8);
  EXPECT_GT(result["overall"]["key_nll"], 0.0);
  EXPECT_THAT(read_text_file(path("needle.html")), HasSubstr("right key likeliest of 4"));
}

TEST_F(Eval, NeedleTakesTheTrainingLengthFromTheRunOfTheStudent) {
  write_file_atomically(path("recipe.toml"),
                        "[model]\nteacher = \"" + path("teacher") +
                            "\"\nkeep_attention = \"1/3\"\n[data]\nfiles = [\"" +
                            path("data.jsonl") +
                            "\"]\nsequence_length = 96\n[[stage]]\nkind = \"align\"\nsteps = 1\n"
                            "batch_tokens = 32\n[run]\ndir = \"" +
                            path("run") + "\"\n");
  const Outcome trained = run({"distill", path("recipe.toml")});
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const Outcome outcome = run({"eval", "needle", "--model", path("run/final"), "--lengths", "160",
                               "--depths", "1", "--trials", "1", "--plain", "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.json()["training_length"], 96);
}

TEST_F(Eval, NeedleRefusesWhatMakesNoSense) {
  const std::vector<std::string> needle = {"eval", "needle", "--model", path("student"), "--plain"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), needle.begin(), needle.end());
    return run(more);
  };
  EXPECT_EQ(with({"--depths", "0,2"}).exit_code, 2);
  EXPECT_EQ(with({"--lengths", "0"}).exit_code, 2);
  EXPECT_EQ(with({"--candidates", "4"}).exit_code, 2);
  const Outcome no_folder = with({"--lengths", "160", "--html", "/no/such/folder/needle.html"});
  EXPECT_EQ(no_folder.exit_code, 1);
  EXPECT_THAT(no_folder.err, HasSubstr("/no/such/folder"));
  const Outcome too_short = with({"--lengths", "30"});
  EXPECT_EQ(too_short.exit_code, 1);
  EXPECT_THAT(too_short.err, HasSubstr("30"));
  const Outcome no_file = with({"--lengths", "160", "--haystack-file", "/no/such/text"});
  EXPECT_EQ(no_file.exit_code, 1);
  EXPECT_THAT(no_file.err, HasSubstr("/no/such/text"));
}

}  // namespace
}  // namespace mambify
