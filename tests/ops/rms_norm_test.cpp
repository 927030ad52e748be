#include "ops/rms_norm.h"

#include <gtest/gtest.h>

#include "ops/tensors.h"
#include "tolerances.h"

namespace mambify {
namespace {

using namespace testing;

constexpr double kEps = 1e-5;

at::Tensor naive_norm(const at::Tensor& u, const at::Tensor& weight, int64_t group_size) {
  const at::Tensor groups = u.view({u.size(0), -1, group_size});
  const at::Tensor scale = (groups.square().mean(-1, /*keepdim=*/true) + kEps).rsqrt();
  return (groups * scale).view(u.sizes()) * weight;
}

TEST(RmsNorm, MatchesTheNaiveFormWithGradients) {
  const Tolerance limit = tolerance("cpu", "fp32");
  expect_same_with_gradients([](const auto& in) { return rms_norm(in[0], in[1], kEps); },
                             [](const auto& in) { return naive_norm(in[0], in[1], 96); },
                             {random_leaf({37, 96}, 1), random_leaf({96}, 2)}, limit.output,
                             limit.gradient);
}

TEST(RmsNorm, FrozenWeightsGetNoGradient) {
  const Tolerance limit = tolerance("cpu", "fp32");
  expect_same_with_gradients(
      [](const auto& in) { return rms_norm(in[0], in[1], kEps); },
      [](const auto& in) { return naive_norm(in[0], in[1], 96); },
      {random_leaf({37, 96}, 1), random_leaf({96}, 2).set_requires_grad(false)}, limit.output,
      limit.gradient);
}

TEST(GatedRmsNorm, MatchesTheNaiveFormWithGradientsOnSlices) {
  const Tolerance limit = tolerance("cpu", "fp32");
  const auto x = [](const auto& in) { return in[0].narrow(1, 4, 96); };
  const auto z = [](const auto& in) { return in[0].narrow(1, 100, 96); };
  expect_same_with_gradients(
      [&](const auto& in) { return gated_rms_norm(x(in), z(in), in[1], 32, kEps); },
      [&](const auto& in) { return naive_norm(x(in) * at::silu(z(in)), in[1], 32); },
      {random_leaf({37, 200}, 1), random_leaf({96}, 2)}, limit.output, limit.gradient);
}

TEST(GatedRmsNorm, RunsInBfloat16) {
  const Tolerance limit = tolerance("cpu", "bf16");
  const auto op = [](const auto& in) { return gated_rms_norm(in[0], in[1], in[2], 32, kEps); };
  const auto in_float = [&](const auto& in) {
    return op(
        std::vector<at::Tensor>{in[0].to(at::kFloat), in[1].to(at::kFloat), in[2].to(at::kFloat)});
  };
  expect_same_with_gradients(
      op, in_float,
      {random_leaf({37, 96}, 1, 1, at::kBFloat16), random_leaf({37, 96}, 2, 1, at::kBFloat16),
       random_leaf({96}, 3, 1, at::kBFloat16)},
      limit.output, limit.gradient);
}

TEST(RmsNorm, WithoutGradientsGivesTheSameBits) {
  const at::Tensor x = random_leaf({5, 96}, 1), weight = random_leaf({96}, 2);
  EXPECT_TRUE(at::equal(rms_norm(x, weight, kEps), rms_norm(x.detach(), weight.detach(), kEps)));
}

TEST(RmsNorm, RefusesShapesThatDoNotFit) {
  EXPECT_THROW(rms_norm(at::zeros({2, 3}), at::zeros({4}), kEps), c10::Error);
  EXPECT_THROW(gated_rms_norm(at::zeros({2, 6}), at::zeros({2, 6}), at::zeros({6}), 4, kEps),
               c10::Error);
  EXPECT_THROW(gated_rms_norm(at::zeros({2, 6}), at::zeros({2, 5}), at::zeros({6}), 3, kEps),
               c10::Error);
}

}  // namespace
}  // namespace mambify
