#include "ops/causal_conv1d.h"

#include <gtest/gtest.h>

#include "ops/tensors.h"
#include "tolerances.h"

namespace mambify {
namespace {

using namespace testing;

// One document after the other, through ATen's convolution. window: [documents, C, W - 1].
at::Tensor naive_conv(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const Segments& segments, bool silu, const at::Tensor& window) {
  std::vector<at::Tensor> documents;
  for (int64_t d = 0; d < segments.documents(); ++d) {
    const at::Tensor tokens = x.narrow(0, segments.begin(d), segments.length(d)).t();
    const at::Tensor padded = at::cat({window[d], tokens}, 1).unsqueeze(0);
    const at::Tensor y = at::conv1d(padded, weight.unsqueeze(1), bias,
                                    /*stride=*/at::IntArrayRef{1}, /*padding=*/at::IntArrayRef{0},
                                    /*dilation=*/at::IntArrayRef{1}, /*groups=*/x.size(1));
    documents.push_back(y[0].t());
  }
  const at::Tensor y = at::cat(documents);
  return silu ? at::silu(y) : y;
}

const Segments kSegments{{0, 1, 3, 70, 101}};

TEST(CausalConv1d, MatchesTheNaiveFormWithGradientsOnSlices) {
  const Tolerance limit = tolerance("cpu", "fp32");
  const at::Tensor zeros = at::zeros({4, 40, 3});
  for (const bool silu : {false, true}) {
    const auto x = [](const auto& in) { return in[0].narrow(1, 8, 40); };
    expect_same_with_gradients(
        [&](const auto& in) { return causal_conv1d(x(in), in[1], in[2], kSegments, silu); },
        [&](const auto& in) { return naive_conv(x(in), in[1], in[2], kSegments, silu, zeros); },
        {random_leaf({101, 60}, 1), random_leaf({40, 4}, 2), random_leaf({40}, 3)}, limit.output,
        limit.gradient);
  }
}

TEST(CausalConv1d, ReadsAndAdvancesTheWindow) {
  const Tolerance limit = tolerance("cpu", "fp32");
  const at::Tensor initial = random_leaf({4, 40, 3}, 4).detach();
  at::Tensor window;
  expect_same_with_gradients(
      [&](const auto& in) {
        window = initial.clone();
        return causal_conv1d(in[0], in[1], {}, kSegments, true, &window);
      },
      [&](const auto& in) { return naive_conv(in[0], in[1], {}, kSegments, true, initial); },
      {random_leaf({101, 40}, 1), random_leaf({40, 4}, 2)}, limit.output, limit.gradient);
  const at::Tensor x = random_leaf({101, 40}, 1).detach();
  EXPECT_TRUE(at::equal(window[3], x.narrow(0, 98, 3).t()));
  EXPECT_TRUE(
      at::equal(window[0], at::cat({initial[0].narrow(1, 1, 2), x.narrow(0, 0, 1).t()}, 1)));
}

TEST(CausalConv1d, BlocksThatAreSharedAreAsIfRepeated) {
  const Tolerance limit = tolerance("cpu", "fp32");
  expect_same_with_gradients(
      [](const auto& in) {
        return causal_conv1d(in[0], in[1], in[2], kSegments, true, /*window=*/nullptr,
                             /*x_block=*/4);
      },
      [](const auto& in) {
        const at::Tensor a = in[0].narrow(1, 0, 4), b = in[0].narrow(1, 4, 4);
        return causal_conv1d(at::cat({a, a, a, b, b, b}, 1), in[1], in[2], kSegments, true);
      },
      {random_leaf({101, 8}, 1), random_leaf({24, 4}, 2), random_leaf({24}, 3)}, limit.output,
      limit.gradient);
}

TEST(CausalConv1d, RunsInBfloat16) {
  const Tolerance limit = tolerance("cpu", "bf16");
  const auto op = [](const auto& in) {
    return causal_conv1d(in[0], in[1], in[2], kSegments, true);
  };
  const auto in_float = [&](const auto& in) {
    return op(
        std::vector<at::Tensor>{in[0].to(at::kFloat), in[1].to(at::kFloat), in[2].to(at::kFloat)});
  };
  expect_same_with_gradients(
      op, in_float,
      {random_leaf({101, 40}, 1, 1, at::kBFloat16), random_leaf({40, 4}, 2, 1, at::kBFloat16),
       random_leaf({40}, 3, 1, at::kBFloat16)},
      limit.output, limit.gradient);
}

TEST(CausalConv1d, RefusesShapesThatDoNotFit) {
  const at::Tensor x = at::zeros({101, 40}), weight = at::zeros({40, 4});
  EXPECT_THROW(causal_conv1d(x, at::zeros({39, 4}), {}, kSegments, true), c10::Error);
  EXPECT_THROW(causal_conv1d(x, at::zeros({40, 9}), {}, kSegments, true), c10::Error);
  EXPECT_THROW(causal_conv1d(x, at::zeros({80, 4}), {}, kSegments, true, nullptr, /*x_block=*/3),
               c10::Error);
  EXPECT_THROW(causal_conv1d(x, weight, at::zeros({4}), kSegments, true), c10::Error);
  EXPECT_THROW(causal_conv1d(x, weight, {}, Segments::one(100), true), c10::Error);
  at::Tensor window = at::zeros({1, 40, 3});
  EXPECT_THROW(causal_conv1d(x, weight, {}, kSegments, true, &window), c10::Error);
}

}  // namespace
}  // namespace mambify
