#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "decode/drafter.h"

namespace mambify {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<TokenId> guess(const std::vector<TokenId>& tokens, int64_t length,
                           const NgramOptions& options = {}) {
  const std::vector<DraftRequest> requests{{.tokens = tokens, .length = length}};
  return ngram_drafter(options)->draft(requests).front().tokens;
}

TEST(NgramDrafter, GuessesThatTheTextGoesOnAsBefore) {
  EXPECT_THAT(guess({1, 2, 3, 4, 5, 1, 2}, 3), ElementsAre(3, 4, 5));
}

TEST(NgramDrafter, TakesTheLongestMatchBeforeTheLatest) {
  EXPECT_THAT(guess({7, 1, 2, 3, 0, 1, 2, 4, 7, 1, 2}, 1), ElementsAre(3));
}

TEST(NgramDrafter, TakesTheLatestOfEqualMatches) {
  EXPECT_THAT(guess({1, 2, 3, 1, 2, 4, 1, 2}, 1), ElementsAre(4));
}

TEST(NgramDrafter, GuessesNothingWithoutAMatch) {
  EXPECT_THAT(guess({1, 2, 3, 4, 5}, 3), IsEmpty());
  EXPECT_THAT(guess({5, 1, 5}, 3), IsEmpty());  // one token is too little by default
  EXPECT_THAT(guess({1}, 3), IsEmpty());
  EXPECT_THAT(guess({5, 1, 5}, 3, {.longest = 2, .shortest = 1}), ElementsAre(1, 5));
}

TEST(NgramDrafter, MayGuessFromTheTextThatItIsAtTheEndOf) {
  EXPECT_THAT(guess({9, 4, 4, 4}, 3), ElementsAre(4));
}

}  // namespace
}  // namespace mambify
