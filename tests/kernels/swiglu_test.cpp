#include <gtest/gtest.h>

#include <vector>

#include "kernels/bf16_values.h"
#include "kernels/swiglu/params.h"
#include "numerics.h"
#include "tolerances.h"

namespace mambify::kernels {
namespace {

using namespace mambify::testing;

template <typename T>
struct Result {
  std::vector<T> y, dgate, dup;
};

template <typename T>
Result<T> run(const std::vector<T>& gate, const std::vector<T>& up, const std::vector<T>& dy,
              void (*forward)(const SwiGluParams<T>&),
              void (*backward)(const SwiGluBackwardParams<T>&)) {
  const int64_t count = gate.size();
  Result<T> r{nan_values<T>(count), nan_values<T>(count), nan_values<T>(count)};
  const SwiGluParams<T> p{count, gate.data(), up.data(), r.y.data()};
  forward(p);
  backward({p, dy.data(), r.dgate.data(), r.dup.data()});
  return r;
}

TEST(SwiGluKernel, MatchesTheReference) {
  const Tolerance limit = tolerance("cpu", "fp32");
  for (const int64_t count : {1, 3, 63, 64, 65, 500, 8192, 30001}) {
    const auto values = [&](auto zero, uint64_t seed) {
      return random_values<decltype(zero)>(count, seed, 4);
    };
    const auto exact = run<double>(values(0.0, 1), values(0.0, 2), values(0.0, 3),
                                   swiglu_forward_reference, swiglu_backward_reference);
    const auto gate = values(0.0f, 1), up = values(0.0f, 2), dy = values(0.0f, 3);
    for (const auto& r :
         {run<float>(gate, up, dy, swiglu_forward_cpu, swiglu_backward_cpu),
          run<float>(gate, up, dy, swiglu_forward_reference, swiglu_backward_reference)}) {
      EXPECT_LT(max_relative_error(r.y, exact.y), limit.output) << count;
      EXPECT_LT(max_relative_error(r.dgate, exact.dgate), limit.gradient) << count;
      EXPECT_LT(max_relative_error(r.dup, exact.dup), limit.gradient) << count;
    }
  }
}

TEST(SwiGluKernel, Bf16IsRoundedOnce) {
  for (const int64_t count : {1, 65, 8192}) {
    const auto gate = narrowed<Bf16>(random_values<float>(count, 1, 4));
    const auto up = narrowed<Bf16>(random_values<float>(count, 2, 4));
    std::vector<Bf16> y(count);
    swiglu_forward_cpu(SwiGluParams<Bf16>{count, gate.data(), up.data(), y.data()});
    std::vector<float> expected(count);
    const auto wide_gate = widened(gate), wide_up = widened(up);
    swiglu_forward_cpu(
        SwiGluParams<float>{count, wide_gate.data(), wide_up.data(), expected.data()});
    EXPECT_EQ(widened(y), widened(narrowed<Bf16>(expected))) << count;
  }
}

TEST(SwiGluKernel, ReferenceGradientsAreNumericalOnes) {
  auto gate = random_values<double>(9, 1, 2), up = random_values<double>(9, 2);
  const auto dy = random_values<double>(9, 3);
  const auto result = [&] {
    return run<double>(gate, up, dy, swiglu_forward_reference, swiglu_backward_reference);
  };
  const auto loss = [&] {
    const auto y = result().y;
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  };
  const double limit = tolerance("cpu", "fp64").gradient;
  const auto r = result();
  EXPECT_LT(max_relative_error(r.dgate, numerical_gradient(loss, gate)), limit);
  EXPECT_LT(max_relative_error(r.dup, numerical_gradient(loss, up)), limit);
}

}  // namespace
}  // namespace mambify::kernels
