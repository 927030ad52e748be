#include "eval/answers/answer_summary.h"

#include <gtest/gtest.h>

namespace mambify {
namespace {

TEST(AnswerSummary, CountsAllAndEachCategory) {
  const std::vector<Question> questions = {
      {{"a", "b"}, "math", {}}, {{"c"}, "writing", {}}, {{"d", "e"}, "math", {}}};
  const std::map<int64_t, JournalEntry> entries = {{0, {{{"one", "two"}, {4, 5}, 1, 0}, 0}},
                                                   {1, {{{"three"}, {6}, 0, 0}, 0}},
                                                   {2, {{{"", "four"}, {0, 10}, 0, 1}, 0}}};
  const nlohmann::json summary = summarise_answers(questions, entries);
  EXPECT_EQ(summary["questions"], 3);
  EXPECT_EQ(summary["turns"], 5);
  EXPECT_EQ(summary["tokens"], 25);
  EXPECT_EQ(summary["tokens_per_turn"], 5.0);
  EXPECT_EQ(summary["cut"], 1);
  EXPECT_EQ(summary["empty"], 1);
  EXPECT_EQ(summary["without_room"], 1);
  EXPECT_EQ(summary["categories"].size(), 2u);
  EXPECT_EQ(summary["categories"]["math"]["turns"], 4);
  EXPECT_EQ(summary["categories"]["writing"]["tokens_per_turn"], 6.0);
}

}  // namespace
}  // namespace mambify
