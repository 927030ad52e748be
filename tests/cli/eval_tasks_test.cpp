// mambify eval tasks, each kind on a small random chat model.
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

class EvalTasks : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = std::make_unique<ScratchFolder>();
    write_teacher(path("teacher"));
    write_file_atomically(
        path("choices.jsonl"),
        R"({"query": "Where is fog?", "choices": ["a marsh", "a desert"], "gold": 0}
{"query": "Who barks?", "choices": ["a cat", "a dog", "a fish"], "gold": 1}
)");
    write_file_atomically(path("sums.jsonl"),
                          R"({"question": "One and one?", "answer": "1 + 1 = 2\n#### 2"}
{"query": "Two and two?", "gold": 4}
)");
    write_file_atomically(path("words.jsonl"),
                          R"({"context": "Once upon a", "continuation": "time"})");
    write_file_atomically(path("tasks.toml"), R"(
[[task]]
name = "likely"
file = "choices.jsonl"
kind = "choice"
[[task]]
name = "words"
file = "words.jsonl"
kind = "last_word"
[[task]]
name = "sums"
file = "sums.jsonl"
kind = "number"
max_tokens = 6
[[task]]
name = "spoken"
file = "choices.jsonl"
kind = "choice_in_words"
max_tokens = 4
)");
  }
  static void TearDownTestSuite() { scratch_.reset(); }
  static std::string path(const std::string& name) { return *scratch_ / name; }
  static Outcome tasks(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"eval",          "tasks",   "--model",
                                          path("teacher"), "--tasks", path("tasks.toml")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }

  static std::unique_ptr<ScratchFolder> scratch_;
};

std::unique_ptr<ScratchFolder> EvalTasks::scratch_;

TEST_F(EvalTasks, EachKindGivesWholeResultsBesideATeacher) {
  const Outcome outcome = tasks(
      {"--teacher", path("teacher"), "--batch", "2", "--json", "--samples", path("samples.jsonl")});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const json result = outcome.json();
  ASSERT_EQ(result["tasks"].size(), 4u);
  for (const json& task : result["tasks"]) {
    for (const json& metric : task["metrics"]) {
      const auto name = metric.get<std::string>();
      EXPECT_TRUE(task[name + "_stderr"].is_number()) << name;
      EXPECT_TRUE(task[name + "_chance"].is_number()) << name;
      EXPECT_EQ(task[name], task["teacher"][name]) << name << ": it is the same model";
      EXPECT_EQ(task["paired"][name]["difference"], 0) << name;
    }
  }
  EXPECT_EQ(result["tasks"][2]["metrics"], json({"strict_match", "flexible_extract"}));
  EXPECT_EQ(result["tasks"][3]["metrics"], json({"acc", "consistent_acc"}));
  EXPECT_EQ(result["tasks"][3]["answers"], 5);
  EXPECT_NEAR(result["tasks"][3]["chance"].get<double>(), (1.0 / 2 + 1.0 / 3) / 2, 1e-12);

  std::istringstream samples(read_text_file(path("samples.jsonl")));
  std::map<std::string, int> by_task;
  for (std::string line; std::getline(samples, line);) {
    ++by_task[json::parse(line)["task"].get<std::string>()];
  }
  EXPECT_EQ(by_task,
            (std::map<std::string, int>{{"likely", 4}, {"spoken", 4}, {"sums", 4}, {"words", 2}}));
}

TEST_F(EvalTasks, TheTableNamesEachMetricAndNote) {
  const Outcome outcome = tasks({"--limit", "1"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("likely (1 items)"), HasSubstr("acc_norm"),
                                 HasSubstr("flexible_extract"), HasSubstr("consistent_acc"),
                                 HasSubstr("unparsed"), HasSubstr("position_bias")));
}

TEST_F(EvalTasks, AnUnknownChatTemplateIsToldBeforeAnythingRuns) {
  const Outcome outcome = tasks({"--chat-template", "gpt"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("gpt"), HasSubstr("llama3")));
  EXPECT_THAT(outcome.err, ::testing::Not(HasSubstr("likely")));
}

}  // namespace
}  // namespace mambify
