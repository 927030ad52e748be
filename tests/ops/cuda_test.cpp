// Ops on tensors of a CUDA device against the same ops on the CPU, with every gradient. Inputs are
// column slices where a model's are.
#include "ops/cuda.h"

#include <gtest/gtest.h>

#include "kernels/cuda/runtime.h"
#include "ops/causal_conv1d.h"
#include "ops/linear_kl.h"
#include "ops/linear_log_probs.h"
#include "ops/rms_norm.h"
#include "ops/rotary.h"
#include "ops/selective_scan.h"
#include "ops/ssd.h"
#include "ops/swiglu.h"
#include "ops/tensors.h"
#include "tolerances.h"

namespace mambify {
namespace {

using namespace testing;

// With an empty document and one shorter than a convolution's filter.
const Segments kPacked{{0, 5, 5, 7, 80, 133}};
constexpr int64_t kTokens = 133;

class CudaOps : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    device_ = load_torch_cuda(0);
    segments_ = kPacked;
    place_on(segments_, device_);
  }

  using Op = std::function<at::Tensor(const std::vector<at::Tensor>&, const Segments&)>;
  void expect_same_as_on_the_cpu(const Op& op, const std::vector<at::Tensor>& leaves) const {
    const TensorFunction on_device = [&](const std::vector<at::Tensor>& in) {
      std::vector<at::Tensor> moved;
      for (const at::Tensor& tensor : in) moved.push_back(tensor.to(device_));
      return op(moved, segments_).to(at::kCPU);
    };
    const TensorFunction on_host = [&](const std::vector<at::Tensor>& in) {
      return op(in, kPacked);
    };
    const Tolerance limit = tolerance("cuda", GetParam() == at::kFloat ? "fp32" : "bf16");
    expect_same_with_gradients(on_device, on_host, leaves, limit.output, limit.gradient);
  }

  at::Tensor leaf(at::IntArrayRef sizes, uint64_t seed, double scale = 1) const {
    return random_leaf(sizes, seed, scale, GetParam());
  }

 private:
  at::Device device_ = at::kCPU;
  Segments segments_;
};

TEST_P(CudaOps, RmsNorm) {
  expect_same_as_on_the_cpu(
      [](const auto& in, const Segments&) { return rms_norm(in[0], in[1], 1e-5); },
      {leaf({kTokens, 576}, 1), leaf({576}, 2)});
}

TEST_P(CudaOps, RmsNormOfAFrozenWeight) {
  expect_same_as_on_the_cpu(
      [](const auto& in, const Segments&) { return rms_norm(in[0], in[1], 1e-5); },
      {leaf({kTokens, 96}, 1), leaf({96}, 2).set_requires_grad(false)});
}

TEST_P(CudaOps, GatedRmsNorm) {
  expect_same_as_on_the_cpu(
      [](const auto& in, const Segments&) {
        return gated_rms_norm(in[0], in[1].narrow(1, 8, 128), in[2], 64, 1e-5);
      },
      {leaf({kTokens, 128}, 1), leaf({kTokens, 200}, 2), leaf({128}, 3)});
}

TEST_P(CudaOps, SwiGlu) {
  expect_same_as_on_the_cpu(
      [](const auto& in, const Segments&) {
        return swiglu(in[0].narrow(1, 0, 96), in[0].narrow(1, 96, 96));
      },
      {leaf({kTokens, 192}, 1)});
}

TEST_P(CudaOps, SwiGluOfOneProduct) {
  expect_same_as_on_the_cpu(
      [](const auto& in, const Segments&) { return swiglu(in[0].narrow(1, 8, 192)); },
      {leaf({kTokens, 208}, 1)});
}

TEST_P(CudaOps, Rotary) {
  expect_same_as_on_the_cpu(
      [](const auto& in, const Segments&) {
        const auto table = rotary_table({}, 64, at::arange(kTokens, in[0].device()));
        return rotary(in[0].narrow(1, 64, 192).unflatten(1, {3, 64}), table.cos, table.sin);
      },
      {leaf({kTokens, 320}, 1)});
}

TEST_P(CudaOps, CausalConv1d) {
  for (const bool silu : {false, true}) {
    expect_same_as_on_the_cpu(
        [&](const auto& in, const Segments& segments) {
          return causal_conv1d(in[0].narrow(1, 16, 96), in[1], in[2], segments, silu);
        },
        {leaf({kTokens, 128}, 1), leaf({96, 4}, 2, 0.5), leaf({96}, 3)});
  }
}

TEST_P(CudaOps, CausalConv1dOfSharedBlocks) {
  expect_same_as_on_the_cpu(
      [&](const auto& in, const Segments& segments) {
        return causal_conv1d(in[0].narrow(1, 16, 32), in[1], in[2], segments, /*silu=*/true,
                             /*window=*/nullptr, /*x_block=*/16);
      },
      {leaf({kTokens, 64}, 1), leaf({96, 4}, 2, 0.5), leaf({96}, 3)});
}

TEST_P(CudaOps, CausalConv1dWithoutABias) {
  expect_same_as_on_the_cpu(
      [&](const auto& in, const Segments& segments) {
        return causal_conv1d(in[0], in[1], /*bias=*/{}, segments, /*silu=*/true);
      },
      {leaf({kTokens, 30}, 1), leaf({30, 3}, 2, 0.5)});
}

// x, B, C and dt beside each other, as in a projection's output; in bf16 rows of it do not start at
// multiples of 16 bytes.
TEST_P(CudaOps, Ssd) {
  constexpr int64_t kHeads = 4, kGroups = 2, kWidth = 16;
  const auto op = [](const auto& in, const Segments& segments, at::Tensor* state) {
    const auto part = [&](int64_t begin, int64_t groups) {
      return in[0].narrow(1, begin * kWidth, groups * kWidth).view({kTokens, groups, kWidth});
    };
    return ssd({.x = part(0, kGroups),
                .dt = in[0].narrow(1, (2 * kGroups + kHeads) * kWidth, kHeads),
                .dt_bias = in[1],
                .A = -in[2].exp(),
                .B = part(kGroups, kGroups),
                .C = part(2 * kGroups, kHeads),
                .D = in[3]},
               segments, state);
  };
  const std::vector<at::Tensor> leaves = {
      leaf({kTokens, (2 * kGroups + kHeads) * kWidth + kHeads}, 1), leaf({kHeads}, 2),
      leaf({kHeads}, 3), leaf({kHeads}, 4)};
  expect_same_as_on_the_cpu(
      [&](const auto& in, const Segments& segments) { return op(in, segments, nullptr); }, leaves);
  // The state after the last tokens is compared, too.
  const at::Tensor before = random_leaf({kPacked.documents(), kHeads, kWidth, kWidth}, 5).detach();
  expect_same_as_on_the_cpu(
      [&](const auto& in, const Segments& segments) {
        at::Tensor state = before.to(in[0].device(), at::kFloat, /*non_blocking=*/false,
                                     /*copy=*/true);
        const at::Tensor y = op(in, segments, &state);
        return at::cat({y.flatten(), state.flatten().to(y.scalar_type())});
      },
      leaves);
}

// Leaves: x, B and C as slices of one projection, dt, and in fp32 dt_bias, A_log and D.
TEST_P(CudaOps, SelectiveScan) {
  for (const bool optional : {false, true}) {
    expect_same_as_on_the_cpu(
        [&](const auto& in, const Segments& segments) {
          SelectiveScanInputs scan{.x = in[0].narrow(1, 0, 96),
                                   .dt = in[1],
                                   .dt_bias = {},
                                   .A = -in[2].exp(),
                                   .B = in[0].narrow(1, 96, 32).unflatten(1, {2, 16}),
                                   .C = in[0].narrow(1, 128, 96).unflatten(1, {6, 16}),
                                   .D = {}};
          if (optional) scan.dt_bias = in[3], scan.D = in[4];
          return selective_scan(scan, segments);
        },
        {leaf({kTokens, 224}, 1), leaf({kTokens, 96}, 2), random_leaf({96, 16}, 3),
         random_leaf({96}, 4).set_requires_grad(optional),
         random_leaf({96}, 5).set_requires_grad(optional)});
  }
}

TEST_P(CudaOps, LinearKl) {
  constexpr int64_t kVocab = 512;
  const at::Tensor teacher_hidden = leaf({kTokens, 40}, 3).detach(),
                   teacher_weight = leaf({kVocab, 40}, 4, 0.3).detach();
  expect_same_as_on_the_cpu(
      [&](const auto& in, const Segments&) {
        const at::Tensor tokens = at::arange(kTokens, in[0].options().dtype(at::kLong));
        LinearKlInputs inputs;
        inputs.hidden = in[0];
        inputs.weight = in[1];
        inputs.teacher_hidden = teacher_hidden.to(in[0].device());
        inputs.teacher_weight = teacher_weight.to(in[0].device());
        inputs.labels = at::where(tokens.remainder(5).eq(2), -100, tokens * 37 % kVocab);
        inputs.mask = tokens.remainder(7).ne(3);
        return linear_kl(inputs, {.kl_weight = 0.5, .ce_weight = 0.25, .chunk_tokens = 50}).loss;
      },
      {leaf({kTokens, 24}, 1), leaf({kVocab, 24}, 2, 0.3)});
}

TEST_P(CudaOps, LinearLogProbs) {
  constexpr int64_t kVocab = 512;
  expect_same_as_on_the_cpu(
      [&](const auto& in, const Segments&) {
        const at::Tensor tokens = at::arange(kTokens, in[0].options().dtype(at::kLong));
        const at::Tensor places = tokens.remainder(7).ne(3).nonzero().squeeze(1);
        return linear_log_probs({in[0], in[1], tokens * 37 % kVocab, places}, /*chunk_tokens=*/50);
      },
      {leaf({kTokens, 24}, 1), leaf({kVocab, 24}, 2, 0.3)});
}

std::vector<at::ScalarType> types() {
  if (kernels::cuda_device_count() == 0) return {};
  return {at::kFloat, at::kBFloat16};
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(CudaOps);
INSTANTIATE_TEST_SUITE_P(, CudaOps, ::testing::ValuesIn(types()), [](const auto& info) {
  return info.param == at::kFloat ? "fp32" : "bf16";
});

}  // namespace
}  // namespace mambify
