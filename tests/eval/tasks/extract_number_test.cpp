#include "eval/tasks/extract_number.h"

#include <gtest/gtest.h>

namespace mambify {
namespace {

// What Python's re finds with the expressions of lm-evaluation-harness, and what is left of it to
// compare; tests/peers/check_extraction.py runs the same and random texts through both.
struct Case {
  const char* text;
  const char* strict;    // nullptr: none
  const char* flexible;  // nullptr: none
  const char* compared;  // of the flexible one
};

constexpr Case kCases[] = {
    {"He has 3 + 4 = 7 apples.\n#### 7", "7", "7", "7"},
    {"#### 1,234.", "1,234.", "1,234.", "1234"},
    {"#### -5 and then 6", "-5", "6", "6"},
    {"The answer is $1,000.", nullptr, "$1,000.", "1000"},
    {"#### $12", nullptr, "$12", "12"},
    {"Answer: 42", nullptr, "42", "42"},
    {"It costs 3.50 dollars", nullptr, "3.50", "3.50"},
    {"from 10-12", nullptr, "-12", "-12"},
    {"no number at all", nullptr, nullptr, ""},
    {"", nullptr, nullptr, ""},
    {"7, or so...", nullptr, "...", ".."},
    {"#### none #### 8", "8", "8", "8"},
    {"####8", nullptr, "8", "8"},
    {"#### 3 #### 4", "3", "4", "4"},
    {"a - 5", nullptr, "5", "5"},
    {"--5", nullptr, "-5", "-5"},
    {"$ 5 .", nullptr, "5", "5"},
    {"5.", nullptr, "5.", "5"},
    {"-.", nullptr, nullptr, ""},
};

std::optional<std::string> expected(const char* text) {
  return text == nullptr ? std::nullopt : std::optional<std::string>(text);
}

TEST(ExtractNumber, ReadsWhatTheHarnessReads) {
  for (const Case& c : kCases) {
    EXPECT_EQ(marked_number(c.text, "#### "), expected(c.strict)) << c.text;
    const auto flexible = last_number(c.text);
    EXPECT_EQ(flexible, expected(c.flexible)) << c.text;
    EXPECT_EQ(normalise_number(flexible.value_or("")), c.compared) << c.text;
  }
}

TEST(ExtractNumber, TakesAnotherMarker) {
  EXPECT_EQ(marked_number("So the answer is 12. The answer is 18", "The answer is "), "18");
  EXPECT_EQ(marked_number("The answer is twelve", "The answer is "), std::nullopt);
}

TEST(ExtractNumber, NormalisesGoldAnswers) {
  EXPECT_EQ(normalise_number("She sold 48/2 = <<48/2=24>>24 clips.\n#### 72"), "72");
  EXPECT_EQ(normalise_number(" $2,125.\n"), "2125");
  EXPECT_EQ(normalise_number("18.00"), "18.00");
}

}  // namespace
}  // namespace mambify
