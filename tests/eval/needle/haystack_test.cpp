#include "eval/needle/haystack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"

namespace mambify {
namespace {

using ::testing::ElementsAre;

const CounterRandom kRandom(7, RandomPurpose::shuffle);

std::vector<std::string> all_of(const Haystack& haystack, int64_t count) {
  std::vector<std::string> sentences;
  for (int64_t i = 0; i < count; ++i) sentences.push_back(haystack.sentence(kRandom, i));
  return sentences;
}

TEST(Haystack, WritesSentencesThatDifferAndHoldNoDigit) {
  const std::vector<std::string> sentences = all_of(Haystack(), 500);
  EXPECT_GT(std::set<std::string>(sentences.begin(), sentences.end()).size(), 490u);
  for (const std::string& sentence : sentences) {
    EXPECT_EQ(sentence.find_first_of("0123456789"), std::string::npos) << sentence;
    EXPECT_EQ(sentence.back(), '.');
  }
  EXPECT_EQ(Haystack().sentence(kRandom, 3), sentences[3]);
  EXPECT_NE(Haystack().sentence(CounterRandom(8, RandomPurpose::shuffle), 3), sentences[3]);
}

TEST(Haystack, ReadsAFileAroundFromSomeSentence) {
  const Haystack haystack("  One, two.  Is it\nthree? Four!\n", "f");
  const std::vector<std::string> sentences = all_of(haystack, 4);
  EXPECT_EQ(sentences[3], sentences[0]);
  EXPECT_THAT((std::set<std::string>(sentences.begin(), sentences.end())),
              ElementsAre("Four!", "Is it three?", "One, two."));
}

TEST(Haystack, CutsASentenceThatDoesNotEnd) {
  std::string words, glued;
  for (int i = 0; i < 200; ++i) words += "word ";
  for (int i = 0; i < 500; ++i) glued += "\u00e9";  // two bytes each
  const std::string cut = Haystack(words, "f").sentence(kRandom, 0);
  EXPECT_LT(cut.size(), 300u);
  EXPECT_TRUE(cut.ends_with("word"));
  const Haystack of_glued(glued, "f");
  for (int64_t i = 0; i < 3; ++i) {
    const std::string part = of_glued.sentence(kRandom, i);
    EXPECT_LT(part.size(), 500u);
    EXPECT_EQ(part.size() % 2, 0u);
    EXPECT_EQ(part.substr(0, 2), "\u00e9");
  }
}

TEST(Haystack, RefusesATextOfNothing) { EXPECT_THROW(Haystack(" \n ", "f"), Error); }

}  // namespace
}  // namespace mambify
