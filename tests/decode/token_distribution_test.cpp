#include "decode/token_distribution.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace mambify {
namespace {

TokenDistribution of_probabilities(const std::vector<float>& probabilities) {
  std::vector<float> logits;
  for (const float p : probabilities) logits.push_back(std::log(p));
  return {logits, {.temperature = 1}};
}

TEST(TokenDistribution, IsTheSoftmaxOfWhatTheFiltersKeep) {
  const std::vector<float> logits{0, std::log(4.f), std::log(3.f), std::log(2.f)};
  const TokenDistribution all(logits, {.temperature = 1});
  for (const auto& [token, expected] : {std::pair(0, 0.1), {1, 0.4}, {2, 0.3}, {3, 0.2}}) {
    EXPECT_NEAR(all.probability(token), expected, 1e-7) << token;
  }
  const TokenDistribution two(logits, {.temperature = 0.5, .top_k = 2});
  EXPECT_NEAR(two.probability(1), 16. / 25, 1e-6);
  EXPECT_NEAR(two.probability(2), 9. / 25, 1e-6);
  EXPECT_EQ(two.probability(3), 0);
  EXPECT_EQ(two.probability(77), 0);
}

TEST(TokenDistribution, GivesEachTokenItsShareOfTheUnitInterval) {
  const TokenDistribution p = of_probabilities({0.25, 0.5, 0.25});
  EXPECT_EQ(p.at(1e-9), 0);
  EXPECT_EQ(p.at(0.2499), 0);
  EXPECT_EQ(p.at(0.2501), 1);
  EXPECT_EQ(p.at(0.7499), 1);
  EXPECT_EQ(p.at(0.7501), 2);
  EXPECT_EQ(p.at(1 - 1e-17), 2);
  EXPECT_EQ(TokenDistribution(5).at(0.9), 5);
}

TEST(TokenDistribution, AboveAnotherKeepsWhatItHasMoreOf) {
  const TokenDistribution p = of_probabilities({0.5, 0.3, 0.2}),
                          q = of_probabilities({0.2, 0.6, 0.2});
  const TokenDistribution left = p.above(q);
  EXPECT_NEAR(left.probability(0), 1, 1e-6);
  EXPECT_EQ(left.probability(1), 0);
  const TokenDistribution without = p.above(TokenDistribution(0));
  EXPECT_NEAR(without.probability(1), 0.6, 1e-6);
  EXPECT_NEAR(without.probability(2), 0.4, 1e-6);
  EXPECT_EQ(without.probability(0), 0);
  EXPECT_NEAR(p.above(p).probability(0), 0.5, 1e-6);  // nothing is left
}

TEST(AcceptOrRedraw, TakesAGuessThatIsAtLeastAsLikelyAsItWasGuessed) {
  const TokenDistribution p = of_probabilities({0.5, 0.3, 0.2}),
                          q = of_probabilities({0.4, 0.5, 0.1});
  for (uint32_t position = 0; position < 1000; ++position) {
    EXPECT_EQ(accept_or_redraw(0, q, p, 1, 2, position), 0);
    EXPECT_EQ(accept_or_redraw(2, q, p, 1, 2, position), 2);
  }
}

TEST(AcceptOrRedraw, NeverTakesWhatTheTargetLeavesOut) {
  const std::vector<float> logits{1, 2, 3};
  const TokenDistribution p(logits, {.temperature = 1, .top_k = 2}),
      q = of_probabilities({0.8, 0.1, 0.1});
  for (uint32_t position = 0; position < 1000; ++position) {
    EXPECT_NE(accept_or_redraw(0, q, p, 1, 2, position), 0);
  }
}

TEST(AcceptOrRedraw, IsAFunctionOfSeedSequenceAndPosition) {
  const TokenDistribution p = of_probabilities({0.4, 0.3, 0.3}),
                          q = of_probabilities({0.2, 0.5, 0.3});
  int differ = 0;
  for (uint32_t position = 0; position < 200; ++position) {
    const TokenId token = accept_or_redraw(1, q, p, 1, 2, position);
    EXPECT_EQ(token, accept_or_redraw(1, q, p, 1, 2, position));
    differ += token != accept_or_redraw(1, q, p, 1, 3, position);
    differ += token != accept_or_redraw(1, q, p, 2, 2, position);
  }
  EXPECT_GT(differ, 20);
}

}  // namespace
}  // namespace mambify
