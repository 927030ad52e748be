// A draft ends before the first guess that, with those before it, is less likely than asked for.
#include <gtest/gtest.h>

#include <vector>

#include "decode/drafter.h"
#include "random_model.h"

namespace mambify {
namespace {

constexpr int64_t kVocabulary = 12, kLength = 4;

// How likely the likeliest next token is.
double likeliest(const Model& model, const std::vector<TokenId>& text) {
  return testing::log_probabilities(model, text)[std::ssize(text) - 1].exp().max().item<double>();
}

class DraftsOfAModel : public ::testing::TestWithParam<SamplingOptions> {
 protected:
  // Of one of two texts side by side, so that drafts of different lengths are in one pass.
  std::vector<Draft> drafts(const std::vector<TokenId>& text, const std::vector<TokenId>& other,
                            double min_probability, bool wants_distributions = false) {
    std::vector<DraftRequest> requests;
    for (const auto* tokens : {&text, &other}) {
      requests.push_back({.row = std::ssize(requests),
                          .tokens = *tokens,
                          .length = kLength,
                          .min_probability = min_probability,
                          .sampling = GetParam(),
                          .wants_distributions = wants_distributions});
    }
    return drafter_->draft(requests);
  }

  const Model model_ = testing::random_model(kVocabulary, 3);
  const std::unique_ptr<Drafter> drafter_ = model_drafter(model_, 2, 64, kLength);
};

TEST_P(DraftsOfAModel, EndBeforeAGuessThatIsNotLikelyEnough) {
  int64_t shorter = 0, longer = 0;
  for (int64_t step = 0; step < 30; ++step) {
    const std::vector<TokenId> text{static_cast<TokenId>(step % kVocabulary), 5,
                                    static_cast<TokenId>(step * 5 % kVocabulary)};
    const std::vector<TokenId> other{7, static_cast<TokenId>(step * 7 % kVocabulary)};
    const std::vector<Draft> all = drafts(text, other, 0);
    for (const double bound : {0.1, 0.4, 0.8}) {
      const std::vector<Draft> some = drafts(text, other, bound);
      for (size_t i = 0; i < 2; ++i) {
        ASSERT_EQ(std::ssize(all[i].tokens), kLength);
        std::vector<TokenId> seen = i == 0 ? text : other;
        double certainty = 1;
        std::vector<TokenId> expected;
        for (const TokenId token : all[i].tokens) {
          certainty *= likeliest(model_, seen);
          ASSERT_GT(std::abs(certainty - bound), 1e-6) << "too close to tell";
          if (certainty < bound) break;
          expected.push_back(token);
          seen.push_back(token);
        }
        EXPECT_EQ(some[i].tokens, expected) << "bound " << bound;
        (std::ssize(expected) < kLength ? shorter : longer) += 1;
      }
    }
  }
  EXPECT_GT(shorter, 20);
  EXPECT_GT(longer, 10);
}

TEST_P(DraftsOfAModel, HaveADistributionForEachGuessThatIsGiven) {
  if (GetParam().temperature == 0) GTEST_SKIP() << "greedy guesses are not drawn";
  for (const Draft& draft : drafts({1, 2, 3}, {4, 5}, 0.4, /*wants_distributions=*/true)) {
    EXPECT_EQ(draft.distributions.size(), draft.tokens.size());
  }
}

TEST_P(DraftsOfAModel, AreEmptyWhereNothingIsCertainEnough) {
  for (const Draft& draft : drafts({1, 2, 3}, {4, 5}, 1)) EXPECT_TRUE(draft.tokens.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Sampling, DraftsOfAModel,
    ::testing::Values(SamplingOptions{}, SamplingOptions{.temperature = 1, .seed = 5},
                      SamplingOptions{.temperature = 0.7, .top_k = 3, .seed = 6}));

}  // namespace
}  // namespace mambify
