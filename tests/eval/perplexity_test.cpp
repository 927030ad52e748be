#include "eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "eval/statistics.h"
#include "random_model.h"

namespace mambify {
namespace {

std::vector<TokenId> text(int64_t tokens) {
  std::vector<TokenId> ids;
  for (int64_t i = 0; i < tokens; ++i) ids.push_back(static_cast<TokenId>((i * i * 7 + i) % 30));
  return ids;
}

// Window by window, alone, in double.
double expected_nll(const Model& model, const std::vector<TokenId>& ids, int64_t window,
                    int64_t windows) {
  double total = 0;
  for (int64_t w = 0; w < windows; ++w) {
    const std::vector<TokenId> part(ids.begin() + w * window, ids.begin() + (w + 1) * window);
    const at::Tensor log_p = testing::log_probabilities(model, part);
    for (int64_t t = 1; t < window; ++t) total -= log_p[t - 1][part[t]].item<double>();
  }
  return total / static_cast<double>(windows * (window - 1));
}

TEST(Perplexity, IsTheMeanOverWholeWindows) {
  const Model model = testing::random_model(30, 2);
  const std::vector<TokenId> ids = text(53);  // three windows of 16, five tokens dropped
  const PerplexityResult result = perplexity(model, ids, {.window = 16});
  EXPECT_EQ(result.windows, 3);
  EXPECT_EQ(result.tokens, 45);
  EXPECT_NEAR(result.mean_nll, expected_nll(model, ids, 16, 3), 1e-5);
  EXPECT_NEAR(result.perplexity, std::exp(result.mean_nll), 1e-9);
}

TEST(Perplexity, ItsErrorIsThatOverWindows) {
  const Model model = testing::random_model(30, 2);
  const std::vector<TokenId> ids = text(48);
  std::vector<double> windows;
  for (int i = 0; i < 3; ++i) {
    windows.push_back(
        perplexity(model, std::span(ids).subspan(i * 16, 16), {.window = 16}).mean_nll);
  }
  const PerplexityResult all = perplexity(model, ids, {.window = 16});
  EXPECT_NEAR(all.mean_nll_error, estimate(windows).error, 1e-6);
  EXPECT_GT(all.mean_nll_error, 0);
}

TEST(Perplexity, StopsAfterMaxWindows) {
  const Model model = testing::random_model(30, 2);
  const std::vector<TokenId> ids = text(53);
  const PerplexityResult result = perplexity(model, ids, {.window = 16, .max_windows = 2});
  EXPECT_EQ(result.tokens, 30);
  EXPECT_NEAR(result.mean_nll, expected_nll(model, ids, 16, 2), 1e-5);
  EXPECT_EQ(perplexity(model, ids, {.window = 16, .max_windows = 9}).windows, 3);
}

TEST(Perplexity, NeedsOneWindow) {
  const Model model = testing::random_model(30, 2);
  EXPECT_THROW(perplexity(model, text(15), {.window = 16}), Error);
  EXPECT_THROW(perplexity(model, text(15), {.window = 1}), Error);
}

}  // namespace
}  // namespace mambify
