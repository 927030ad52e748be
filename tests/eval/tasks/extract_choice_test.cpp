#include "eval/tasks/extract_choice.h"

#include <gtest/gtest.h>

namespace mambify {
namespace {

const std::vector<std::string> kOptions = {"a marsh", "a desert", "the plains",
                                           "a marsh at night."};

std::string letter(std::string_view answer, const std::vector<std::string>& options = kOptions) {
  const auto position = chosen_option(answer, options);
  return position ? std::string(1, option_letter(*position)) : "none";
}

TEST(ExtractChoice, ReadsALetterThatBeginsTheAnswer) {
  for (const char* answer :
       {"B", "b", " B.\n", "(B)", "**B**", "**B.**", "B. a desert", "(b)", "B) a desert",
        "B: because", "\"B\"", "'B'", "B\nIt is hot.", "B, surely", "B is right", "[B]", "_B_"}) {
    EXPECT_EQ(letter(answer), "B") << answer;
  }
  EXPECT_EQ(letter("A. the plains"), "A") << "the letter was asked for";
  EXPECT_EQ(letter("A is right"), "A");
}

TEST(ExtractChoice, ReadsALetterBehindAnAnswerOrAnOption) {
  for (const char* answer :
       {"The answer is C", "The correct answer is (C).", "Answer: C", "answer: **C**",
        "The right answer is:\n\nC. the plains", "The answer is option C.",
        "At first the answer is A. No, the answer is C", "Option C fits best",
        "I would choose option (C) here", "It must be (C) because", "the correct choice is C",
        "The answer is: 'C'"}) {
    EXPECT_EQ(letter(answer), "C") << answer;
  }
}

TEST(ExtractChoice, ReadsTheTextOfAnOption) {
  EXPECT_EQ(letter("A desert"), "B") << "an article, no letter";
  EXPECT_EQ(letter("The answer is a desert."), "B");
  EXPECT_EQ(letter("The answer is A  DESERT"), "B");
  EXPECT_EQ(letter("Fog lies over the plains in autumn"), "C");
  EXPECT_EQ(letter("I think of a marsh at night"), "D") << "the longer of two";
  EXPECT_EQ(letter("a marsh, I think"), "A");
}

TEST(ExtractChoice, GuessesNothing) {
  for (const char* answer :
       {"", " ", "E", "Z.", "I do not know", "a marsh or a desert", "Option A or option B",
        "(A) and (B) are both possible", "B or C, I think", "Neither A nor B", "all deserts",
        "As I said", "It's Bob"}) {
    EXPECT_EQ(letter(answer), "none") << answer;
  }
  EXPECT_EQ(letter("E", {"a", "b", "c", "d", "e"}), "E");
  EXPECT_EQ(letter("C", {"yes", "no"}), "none") << "there is no such letter";
}

TEST(ExtractChoice, KnowsWordsFromPartsOfWords) {
  EXPECT_EQ(letter("He is nowhere", {"now", "no"}), "none");
  EXPECT_EQ(letter("no, never", {"now", "no"}), "B");
  EXPECT_EQ(letter("über alles", {"ber", "alles"}), "B");
}

}  // namespace
}  // namespace mambify
