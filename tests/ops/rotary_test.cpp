#include "ops/rotary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "ops/tensors.h"
#include "tolerances.h"

namespace mambify {
namespace {

using namespace testing;

// x cos + rotate_half(x) sin, as transformers writes it.
at::Tensor naive_rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const auto halves = x.chunk(2, -1);
  const at::Tensor turned = at::cat({-halves[1], halves[0]}, -1);
  return x * at::cat({cos, cos}, -1).unsqueeze(1) + turned * at::cat({sin, sin}, -1).unsqueeze(1);
}

TEST(Rotary, MatchesTheNaiveFormWithGradients) {
  const auto [cos, sin] = rotary_table({100000, {}}, 16, at::arange(7, 44));
  const Tolerance limit = tolerance("cpu", "fp32");
  expect_same_with_gradients([&](const auto& in) { return rotary(in[0], cos, sin); },
                             [&](const auto& in) { return naive_rotary(in[0], cos, sin); },
                             {random_leaf({37, 3, 16}, 1)}, limit.output, limit.gradient);
}

TEST(Rotary, ReadsColumnSlices) {
  const auto [cos, sin] = rotary_table({}, 8, at::arange(5));
  const at::Tensor wide = random_leaf({5, 40}, 2).detach();
  const at::Tensor slice = wide.narrow(1, 8, 16).view({5, 2, 8});
  EXPECT_TRUE(at::equal(rotary(slice, cos, sin), rotary(slice.contiguous(), cos, sin)));
}

TEST(Rotary, KeepsTheInputsType) {
  const auto [cos, sin] = rotary_table({}, 8, at::arange(5));
  const at::Tensor x = random_leaf({5, 2, 8}, 3).detach();
  const at::Tensor y = rotary(x.to(at::kBFloat16), cos, sin);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_LT(tensor_error(y, rotary(x, cos, sin)), tolerance("cpu", "bf16").output);
}

TEST(Rotary, TableHoldsTheAnglesOfItsPositions) {
  const auto [cos, sin] = rotary_table({10000, {}}, 64, at::tensor({0, 1, 1000}, at::kLong));
  ASSERT_EQ(cos.sizes(), at::IntArrayRef({3, 32}));
  for (int64_t i = 0; i < 32; ++i) {
    const double angle = std::pow(10000, -2 * i / 64.0);
    EXPECT_EQ(cos[0][i].item<float>(), 1);
    EXPECT_NEAR(sin[1][i].item<float>(), std::sin(angle), 1e-6);
    EXPECT_NEAR(cos[2][i].item<float>(), std::cos(1000 * angle), 2e-4);
  }
}

TEST(Rotary, Llama3ScalingStretchesOnlyLongWavelengths) {
  const Llama3Scaling scaling{8, 1, 4, 8192};
  const at::Tensor position = at::ones({1}, at::kLong);
  const at::Tensor plain = rotary_table({500000, {}}, 128, position).sin.asin()[0];
  const at::Tensor scaled = rotary_table({500000, scaling}, 128, position).sin.asin()[0];
  int kept = 0, stretched = 0, between = 0;
  for (int64_t i = 1; i < 64; ++i) {  // sin is not monotonic at the first one's angle, 1
    const double frequency = std::pow(500000, -2 * i / 128.0);
    const double wavelength = 2 * std::numbers::pi / frequency;
    const double ratio = scaled[i].item<double>() / plain[i].item<double>();
    if (wavelength < 8192 / 4.0) {
      EXPECT_NEAR(ratio, 1, 1e-6);
      ++kept;
    } else if (wavelength > 8192) {
      EXPECT_NEAR(ratio, 1 / 8.0, 1e-6);
      ++stretched;
    } else {
      const double smooth = (8192 / wavelength - 1) / 3;
      EXPECT_NEAR(ratio, (1 - smooth) / 8 + smooth, 1e-5);
      ++between;
    }
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(stretched, 0);
  EXPECT_GT(between, 0);
}

}  // namespace
}  // namespace mambify
