#include "kernels/math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace mambify::kernels {
namespace {

using Limits = std::numeric_limits<float>;

// The largest relative error of f over [low, high].
template <typename Fast, typename Exact>
double worst_error(Fast fast, Exact exact, float low, float high) {
  constexpr int kSamples = 1000003;
  double worst = 0;
  for (int i = 0; i <= kSamples; ++i) {
    const float x = low + (high - low) * (static_cast<float>(i) / kSamples);
    const double expected = exact(static_cast<double>(x));
    if (std::abs(expected) < Limits::min()) continue;
    worst = std::max(worst, std::abs(fast(x) - expected) / std::abs(expected));
  }
  return worst;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// The functions are inlined everywhere, so that none has an address to be called by.
TEST(Math, ErrorsAreBelowTheDocumentedOnes) {
  const auto exp = [](float x) { return fast_exp(x); };
  const auto exact_exp = [](double x) { return std::exp(x); };
  EXPECT_LT(worst_error(exp, exact_exp, -87.3f, 88.3f), 2e-7);
  EXPECT_LT(worst_error([](float x) { return fast_sigmoid(x); }, sigmoid, -87.3f, 100), 4e-7);
  const auto silu = [](float x) { return fast_silu(x); };
  const auto exact_silu = [](double x) { return x * sigmoid(x); };
  EXPECT_LT(worst_error(silu, exact_silu, -87.3f, 100), 4e-7);
  const auto softplus = [](float x) { return fast_softplus(x); };
  const auto exact_softplus = [](double x) { return std::log1p(std::exp(x)); };
  EXPECT_LT(worst_error(softplus, exact_softplus, -87.3f, 100), 5e-7);
}

TEST(Math, SiluGradientIsThatOfSilu) {
  for (float x = -90; x < 90; x += 0.01f) {
    const double s = sigmoid(x);
    EXPECT_NEAR(fast_silu_gradient(x), s * (1 + x * (1 - s)), 1e-6) << x;
  }
}

TEST(Math, SaturatesAtTheEnds) {
  EXPECT_EQ(fast_exp(-Limits::infinity()), 0);
  EXPECT_EQ(fast_exp(-1000), 0);
  EXPECT_EQ(fast_exp(1000), Limits::infinity());
  EXPECT_EQ(fast_exp(0), 1);
  EXPECT_EQ(fast_sigmoid(-1000), 0);
  EXPECT_EQ(fast_sigmoid(1000), 1);
  EXPECT_EQ(fast_softplus(1000), 1000);
  EXPECT_EQ(fast_softplus(-1000), 0);
}

TEST(Math, NanPassesOn) {
  const float nan = Limits::quiet_NaN();
  EXPECT_TRUE(std::isnan(fast_exp(nan)));
  EXPECT_TRUE(std::isnan(fast_sigmoid(nan)));
  EXPECT_TRUE(std::isnan(fast_silu(nan)));
  EXPECT_TRUE(std::isnan(fast_silu_gradient(nan)));
  EXPECT_TRUE(std::isnan(fast_softplus(nan)));
}

}  // namespace
}  // namespace mambify::kernels
