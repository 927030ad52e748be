// Both scans as ops: against a loop of ATen operations that autograd differentiates.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "ops/selective_scan.h"
#include "ops/ssd.h"
#include "ops/tensors.h"
#include "tolerances.h"

namespace mambify {
namespace {

using namespace testing;

// [T, groups, N] to [T, count, N]: what each of `count` channels or heads reads.
at::Tensor expand_groups(const at::Tensor& x, int64_t count) {
  return x.repeat_interleave(count / x.size(1), 1);
}

at::Tensor naive_selective_scan(const SelectiveScanInputs& in, const Segments& segments) {
  const int64_t channels = in.x.size(1);
  const at::Tensor dt = at::softplus(in.dt + in.dt_bias);
  const at::Tensor B = expand_groups(in.B, channels), C = expand_groups(in.C, channels);
  std::vector<at::Tensor> y;
  for (int64_t i = 0; i < segments.documents(); ++i) {
    at::Tensor h = at::zeros_like(in.A);
    for (int64_t t = segments.begin(i); t < segments.begin(i) + segments.length(i); ++t) {
      const at::Tensor s = dt[t].unsqueeze(1);
      h = at::exp(s * in.A) * h + s * in.x[t].unsqueeze(1) * B[t];
      y.push_back((h * C[t]).sum(1) + in.D * in.x[t]);
    }
  }
  return at::stack(y);
}

at::Tensor naive_ssd(const SsdInputs& in, const Segments& segments) {
  const int64_t heads = in.A.size(0);
  const at::Tensor dt = at::clamp(at::softplus(in.dt + in.dt_bias), in.dt_min, in.dt_max);
  const at::Tensor x = expand_groups(in.x, heads);
  const at::Tensor B = expand_groups(in.B, heads), C = expand_groups(in.C, heads);
  std::vector<at::Tensor> y;
  for (int64_t i = 0; i < segments.documents(); ++i) {
    at::Tensor h = at::zeros({heads, x.size(2), B.size(2)});
    for (int64_t t = segments.begin(i); t < segments.begin(i) + segments.length(i); ++t) {
      const at::Tensor s = dt[t].view({heads, 1, 1});
      h = at::exp(s * in.A.view({heads, 1, 1})) * h + s * x[t].unsqueeze(2) * B[t].unsqueeze(1);
      y.push_back((h * C[t].unsqueeze(1)).sum(2) + in.D.unsqueeze(1) * x[t]);
    }
  }
  return at::stack(y);
}

const Segments kPacked{{0, 5, 6, 43}};

// Leaves in the order of the structs; A_log in the place of A. x, B and C are slices of one leaf,
// as they are of a projection's output in a mixer.
std::vector<at::Tensor> selective_scan_leaves(at::ScalarType dtype = at::kFloat) {
  return {random_leaf({43, 24 + 3 * 4 + 6 * 4}, 1, 1, dtype), random_leaf({43, 24}, 2, 1, dtype),
          random_leaf({24}, 3), random_leaf({24, 4}, 4), random_leaf({24}, 5)};
}
SelectiveScanInputs selective_scan_inputs(const std::vector<at::Tensor>& leaves) {
  const at::Tensor wide = leaves[0];
  return {.x = wide.narrow(1, 0, 24),
          .dt = leaves[1],
          .dt_bias = leaves[2],
          .A = -leaves[3].exp(),
          .B = wide.narrow(1, 24, 12).view({43, 3, 4}),
          .C = wide.narrow(1, 36, 24).view({43, 6, 4}),
          .D = leaves[4]};
}

std::vector<at::Tensor> ssd_leaves(at::ScalarType dtype = at::kFloat) {
  return {random_leaf({43, 2 * 8 + 2 * 5 + 4 * 5 + 4}, 1, 1, dtype), random_leaf({4}, 3),
          random_leaf({4}, 4), random_leaf({4}, 5)};
}
SsdInputs ssd_inputs(const std::vector<at::Tensor>& leaves) {
  const at::Tensor wide = leaves[0];
  return {.x = wide.narrow(1, 0, 16).view({43, 2, 8}),
          .dt = wide.narrow(1, 46, 4),
          .dt_bias = leaves[1],
          .A = -leaves[2].exp(),
          .B = wide.narrow(1, 16, 10).view({43, 2, 5}),
          .C = wide.narrow(1, 26, 20).view({43, 4, 5}),
          .D = leaves[3],
          .dt_min = 0.1,
          .dt_max = 1.5};
}

TEST(SelectiveScanOp, MatchesAnATenLoopWithGradients) {
  const Tolerance limit = tolerance("cpu", "fp32");
  expect_same_with_gradients(
      [](const auto& in) { return selective_scan(selective_scan_inputs(in), kPacked); },
      [](const auto& in) { return naive_selective_scan(selective_scan_inputs(in), kPacked); },
      selective_scan_leaves(), limit.output, limit.gradient);
}

TEST(SsdOp, MatchesAnATenLoopWithGradients) {
  const Tolerance limit = tolerance("cpu", "fp32");
  expect_same_with_gradients([](const auto& in) { return ssd(ssd_inputs(in), kPacked); },
                             [](const auto& in) { return naive_ssd(ssd_inputs(in), kPacked); },
                             ssd_leaves(), limit.output, limit.gradient);
}

TEST(SelectiveScanOp, KeepsBf16OutsideAndFp32Inside) {
  const Tolerance limit = tolerance("cpu", "bf16");
  const auto f = [](const auto& in) { return selective_scan(selective_scan_inputs(in), kPacked); };
  const auto in_float = [&](const std::vector<at::Tensor>& in) {
    return f(std::vector<at::Tensor>{in[0].to(at::kFloat), in[1].to(at::kFloat), in[2], in[3],
                                     in[4]})
        .to(at::kBFloat16);
  };
  const auto leaves = selective_scan_leaves(at::kBFloat16);
  EXPECT_EQ(f(leaves).scalar_type(), at::kBFloat16);
  expect_same_with_gradients(f, in_float, leaves, limit.output, limit.gradient);
}

TEST(SsdOp, KeepsBf16OutsideAndFp32Inside) {
  const Tolerance limit = tolerance("cpu", "bf16");
  const auto f = [](const auto& in) { return ssd(ssd_inputs(in), kPacked); };
  const auto in_float = [&](const std::vector<at::Tensor>& in) {
    return f(std::vector<at::Tensor>{in[0].to(at::kFloat), in[1], in[2], in[3]}).to(at::kBFloat16);
  };
  const auto leaves = ssd_leaves(at::kBFloat16);
  EXPECT_EQ(f(leaves).scalar_type(), at::kBFloat16);
  expect_same_with_gradients(f, in_float, leaves, limit.output, limit.gradient);
}

// Tokens [begin, begin + count) of every input.
SelectiveScanInputs tokens_of(SelectiveScanInputs in, int64_t begin, int64_t count) {
  for (at::Tensor* tensor : {&in.x, &in.dt, &in.B, &in.C})
    *tensor = tensor->narrow(0, begin, count);
  return in;
}
SsdInputs tokens_of(SsdInputs in, int64_t begin, int64_t count) {
  for (at::Tensor* tensor : {&in.x, &in.dt, &in.B, &in.C})
    *tensor = tensor->narrow(0, begin, count);
  return in;
}

// The second part of a sequence, started from the state after the first, gives the outputs of the
// whole and the gradient of C, which does not flow through the state.
template <typename Inputs, typename Scan>
void expect_state_carries(const Inputs& in, at::IntArrayRef state_sizes, const Scan& scan) {
  at::Tensor whole = at::zeros(state_sizes), carried = at::zeros(state_sizes);
  const at::Tensor y = scan(in, Segments::one(43), &whole);
  const at::Tensor first = scan(tokens_of(in, 0, 20), Segments::one(20), &carried);
  const at::Tensor second = scan(tokens_of(in, 20, 23), Segments::one(23), &carried);
  EXPECT_TRUE(at::equal(at::cat({first, second}), y));
  EXPECT_TRUE(at::equal(carried, whole));
  const at::Tensor dy = random_leaf(second.sizes(), 9).detach();
  in.C.retain_grad();
  (y.narrow(0, 20, 23) * dy).sum().backward({}, /*retain_graph=*/true);
  const at::Tensor expected = in.C.grad().clone();
  in.C.mutable_grad().zero_();
  (second * dy).sum().backward();
  EXPECT_LT(tensor_error(in.C.grad(), expected), tolerance("cpu", "fp32").gradient);
}

TEST(SelectiveScanOp, StateCarriesASequenceOn) {
  expect_state_carries(selective_scan_inputs(selective_scan_leaves()), {1, 24, 4}, selective_scan);
}

TEST(SsdOp, StateCarriesASequenceOn) {
  expect_state_carries(ssd_inputs(ssd_leaves()), {1, 4, 8, 5}, ssd);
}

TEST(SelectiveScanOp, WithoutGradientsGivesTheSameBits) {
  const SelectiveScanInputs in = selective_scan_inputs(selective_scan_leaves());
  const at::Tensor y = selective_scan(in, kPacked);
  c10::NoGradGuard guard;
  EXPECT_TRUE(at::equal(selective_scan(in, kPacked), y));
}

TEST(SsdOp, WithoutGradientsGivesTheSameBits) {
  const SsdInputs in = ssd_inputs(ssd_leaves());
  const at::Tensor y = ssd(in, kPacked);
  c10::NoGradGuard guard;
  EXPECT_TRUE(at::equal(ssd(in, kPacked), y));
}

// Inputs like `in` whose bias and skip connection are `bias` and `skip`.
template <typename Inputs>
Inputs with(Inputs in, const at::Tensor& bias, const at::Tensor& skip) {
  in.dt_bias = bias;
  in.D = skip;
  return in;
}

TEST(SelectiveScanOp, AnUndefinedBiasOrSkipIsZero) {
  const Tolerance limit = tolerance("cpu", "fp32");
  const at::Tensor zeros = at::zeros({24});
  expect_same_with_gradients(
      [](const auto& in) {
        return selective_scan(with(selective_scan_inputs(in), at::Tensor(), at::Tensor()), kPacked);
      },
      [&](const auto& in) {
        return naive_selective_scan(with(selective_scan_inputs(in), zeros, zeros), kPacked);
      },
      selective_scan_leaves(), limit.output, limit.gradient);
}

TEST(SsdOp, AnUndefinedBiasOrSkipIsZero) {
  const Tolerance limit = tolerance("cpu", "fp32");
  const at::Tensor zeros = at::zeros({4});
  expect_same_with_gradients(
      [](const auto& in) { return ssd(with(ssd_inputs(in), at::Tensor(), at::Tensor()), kPacked); },
      [&](const auto& in) { return naive_ssd(with(ssd_inputs(in), zeros, zeros), kPacked); },
      ssd_leaves(), limit.output, limit.gradient);
}

TEST(ScanOps, SizesThatDoNotFitAreRefused) {
  SelectiveScanInputs scan = selective_scan_inputs(selective_scan_leaves());
  EXPECT_THROW(selective_scan(scan, Segments::one(42)), c10::Error);
  scan.dt_bias = at::zeros({23});
  EXPECT_THROW(selective_scan(scan, kPacked), c10::Error);
  SsdInputs inputs = ssd_inputs(ssd_leaves());
  at::Tensor state = at::zeros({3, 4, 8, 6});
  EXPECT_THROW(ssd(inputs, kPacked, &state), c10::Error);
  inputs.B = at::zeros({43, 3, 5});
  EXPECT_THROW(ssd(inputs, kPacked), c10::Error);
}

}  // namespace
}  // namespace mambify
