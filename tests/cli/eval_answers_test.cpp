// mambify eval answers, on a small random chat model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "cli/program.h"
#include "cli/small_teacher.h"

namespace mambify {
namespace {

using namespace testing;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kQuestions = 24;

class EvalAnswers : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = std::make_unique<ScratchFolder>();
    write_teacher(path("teacher"));
    std::string lines;
    const char* categories[] = {"writing", "math", "stem"};
    for (int i = 0; i < kQuestions; ++i) {
      const json line = {{"question_id", 90 - i},
                         {"category", categories[i % 3]},
                         {"turns", {fmt::format("Question {}?", i), "Why?"}}};
      lines += line.dump() + "\n";
    }
    write_file_atomically(path("question.jsonl"), lines);
    write_file_atomically(path("instructions.json"),
                          R"([{"instruction": "Say hi", "dataset": "koala"},
                              {"instruction": "Count", "dataset": "vicuna"}])");
  }
  static void TearDownTestSuite() { scratch_.reset(); }

  static std::string path(const std::string& name) { return *scratch_ / name; }
  // more: options beside those that every run has, or in their place.
  static Outcome answer(const std::string& out, const std::map<std::string, std::string>& more = {},
                        const std::string& before = "") {
    std::map<std::string, std::string> options = {{"--model", path("teacher")},
                                                  {"--questions", path("question.jsonl")},
                                                  {"--out", path(out)},
                                                  {"--seed", "4"},
                                                  {"--max-tokens", "12"}};
    for (const auto& [name, value] : more) options[name] = value;
    std::vector<std::string> arguments = {"eval", "answers", "--json"};
    for (const auto& [name, value] : options) arguments.insert(arguments.end(), {name, value});
    return run(arguments, "", before);
  }
  static std::vector<json> lines(const std::string& name) {
    std::istringstream stream(read_text_file(path(name)));
    std::vector<json> found;
    for (std::string line; std::getline(stream, line);) found.push_back(json::parse(line));
    return found;
  }
  // What does not depend on when it was written.
  static std::vector<json> choices(const std::string& name) {
    std::vector<json> found = lines(name);
    for (json& line : found) line.erase("tstamp");
    return found;
  }

  static std::unique_ptr<ScratchFolder> scratch_;
};

std::unique_ptr<ScratchFolder> EvalAnswers::scratch_;

TEST_F(EvalAnswers, WritesMtBenchInTwoTurns) {
  const Outcome outcome = answer("model_answer/tiny.jsonl");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const std::vector<json> found = lines("model_answer/tiny.jsonl");
  ASSERT_EQ(found.size(), size_t{kQuestions});
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i]["question_id"], 91 - kQuestions + i);
    EXPECT_EQ(found[i]["model_id"], "tiny");
    EXPECT_EQ(found[i]["choices"][0]["turns"].size(), 2u);
  }
  const json summary = outcome.json();
  EXPECT_EQ(summary["format"], "mt_bench");
  EXPECT_EQ(summary["questions"], kQuestions);
  EXPECT_EQ(summary["turns"], 2 * kQuestions);
  EXPECT_EQ(summary["categories"]["math"]["turns"], 2 * kQuestions / 3);
  EXPECT_FALSE(fs::exists(path("model_answer/tiny.jsonl.partial")));

  const Outcome again = answer("model_answer/tiny.jsonl");
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_THAT(again.err, AllOf(HasSubstr("tiny.jsonl"), HasSubstr("is there already")));
}

TEST_F(EvalAnswers, AStoppedRunGoesOnToTheSameAnswers) {
  ASSERT_EQ(answer("whole.jsonl", {{"--model-id", "m"}}).exit_code, 0);
  // The journal ends within a line where the disk is full.
  const Outcome stopped =
      answer("parts.jsonl", {{"--model-id", "m"}, {"--batch", "2"}}, "ulimit -f 4; trap '' XFSZ;");
  ASSERT_EQ(stopped.exit_code, 1);
  EXPECT_THAT(stopped.err, HasSubstr("parts.jsonl.partial"));
  ASSERT_TRUE(fs::exists(path("parts.jsonl.partial")));
  EXPECT_FALSE(fs::exists(path("parts.jsonl")));

  const Outcome other = answer("parts.jsonl", {{"--model-id", "m"}, {"--max-tokens", "13"}});
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.err, HasSubstr("max_tokens = 12"));

  const Outcome resumed = answer("parts.jsonl", {{"--model-id", "m"}, {"--batch", "3"}});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_GT(resumed.json()["answered_before"], 0);
  EXPECT_LT(resumed.json()["answered_before"], kQuestions);
  EXPECT_EQ(choices("parts.jsonl"), choices("whole.jsonl"));
}

TEST_F(EvalAnswers, ADraftChangesNoAnswer) {
  ASSERT_EQ(answer("plain.jsonl", {{"--model-id", "m"}}).exit_code, 0);
  ASSERT_EQ(answer("drafted.jsonl", {{"--model-id", "m"}, {"--draft", "ngram"}}).exit_code, 0);
  EXPECT_EQ(choices("drafted.jsonl"), choices("plain.jsonl"));
}

TEST_F(EvalAnswers, CategoriesHaveTheirTemperaturesUnlessOneIsGiven) {
  const auto turns = [](const std::string& name, const std::map<std::string, std::string>& more) {
    const Outcome outcome = answer(name, more);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    std::map<int64_t, json> found;
    for (const json& line : lines(name)) {
      found[line["question_id"].get<int64_t>()] = line["choices"][0]["turns"];
    }
    return found;
  };
  auto one = turns("one.jsonl", {{"--seed", "1"}}), two = turns("two.jsonl", {{"--seed", "2"}});
  EXPECT_EQ(one[89], two[89]) << "math is greedy";
  EXPECT_NE(one[90], two[90]) << "writing is sampled";
  auto hot = turns("hot.jsonl", {{"--seed", "2"}, {"--temperature", "1"}});
  EXPECT_NE(hot[89], two[89]);
}

TEST_F(EvalAnswers, WritesAlpacaEval) {
  const Outcome outcome = run({"eval", "answers", "--model", path("teacher"), "--instructions",
                               path("instructions.json"), "--out", path("outputs.json"),
                               "--model-id", "student", "--max-tokens", "5"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("koala"));
  const json list = json::parse(read_text_file(path("outputs.json")));
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[1]["instruction"], "Count");
  EXPECT_EQ(list[1]["dataset"], "vicuna");
  EXPECT_EQ(list[1]["generator"], "student");
  EXPECT_TRUE(list[1]["output"].is_string());
}

TEST_F(EvalAnswers, TakesOneFileOfQuestions) {
  const std::string out = path("x.jsonl");
  EXPECT_EQ(run({"eval", "answers", "--model", path("teacher"), "--out", out}).exit_code, 2);
  EXPECT_EQ(answer("x.jsonl", {{"--instructions", path("instructions.json")}}).exit_code, 2);
  const Outcome absent = answer("x.jsonl", {{"--questions", path("absent.jsonl")}});
  EXPECT_EQ(absent.exit_code, 1);
  EXPECT_THAT(absent.err, HasSubstr("absent.jsonl"));
  const Outcome ending = answer("x.json");
  EXPECT_EQ(ending.exit_code, 2);
  EXPECT_THAT(ending.err, HasSubstr(".jsonl"));
  EXPECT_FALSE(fs::exists(out + ".partial"));
}

}  // namespace
}  // namespace mambify
