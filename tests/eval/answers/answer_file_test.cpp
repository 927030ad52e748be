#include "eval/answers/answer_file.h"

#include <gtest/gtest.h>

#include <sstream>

namespace mambify {
namespace {

using nlohmann::json;

TEST(AnswerFile, OfMtBenchIsWhatFastChatReads) {
  const std::vector<Question> questions = {
      {{"a", "b"}, "writing", {{"question_id", 90}, {"category", "writing"}}},
      {{"c"}, "math", {{"question_id", 85}, {"category", "math"}}}};
  const std::map<int64_t, JournalEntry> entries = {{0, {{{"one\n", "two"}, {1, 1}}, 12.5}},
                                                   {1, {{{"three"}, {1}}, 13}}};
  std::istringstream lines(mt_bench_answers(questions, entries, "m"));
  std::vector<json> found;
  for (std::string line; std::getline(lines, line);) found.push_back(json::parse(line));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0]["question_id"], 85);
  EXPECT_EQ(found[1]["question_id"], 90);
  EXPECT_EQ(found[1]["choices"], json::parse(R"([{"index": 0, "turns": ["one\n", "two"]}])"));
  EXPECT_EQ(found[1]["model_id"], "m");
  EXPECT_EQ(found[1]["tstamp"], 12.5);
  EXPECT_NE(found[0]["answer_id"], found[1]["answer_id"]);
  EXPECT_EQ(found[1].size(), 5u);
}

TEST(AnswerFile, OfAlpacaEvalIsItsListWithOutputs) {
  const std::vector<Question> questions = {
      {{"a"}, "koala", {{"instruction", "a"}, {"dataset", "koala"}}},
      {{"b"}, "", {{"instruction", "b"}, {"output", "a reference"}, {"generator", "another"}}}};
  const std::map<int64_t, JournalEntry> entries = {{0, {{{"one \xc3"}, {1}}, 1}},
                                                   {1, {{{""}, {0}}, 2}}};
  const json found = json::parse(alpaca_answers(questions, entries, "m"));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0], (json{{"instruction", "a"},
                            {"dataset", "koala"},
                            {"output", "one \uFFFD"},
                            {"generator", "m"}}));
  EXPECT_EQ(found[1]["output"], "");
  EXPECT_EQ(found[1]["generator"], "m");
}

}  // namespace
}  // namespace mambify
