// What tests of ops share: random tensors and errors between tensors.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "numerics.h"

namespace mambify::testing {

// Normally distributed with a fixed seed, requiring grad.
inline at::Tensor random_leaf(at::IntArrayRef sizes, uint64_t seed, double scale = 1,
                              at::ScalarType dtype = at::kFloat) {
  int64_t count = 1;
  for (const int64_t size : sizes) count *= size;
  std::vector<double> values = random_values<double>(count, seed, scale);
  return at::from_blob(values.data(), sizes, at::kDouble).to(dtype).clone().set_requires_grad(true);
}

// max_relative_error of two tensors of the same sizes; infinite when the sizes differ.
inline double tensor_error(const at::Tensor& actual, const at::Tensor& expected) {
  if (actual.sizes() != expected.sizes()) return std::numeric_limits<double>::infinity();
  const at::Tensor a = actual.detach().to(at::kDouble).contiguous();
  const at::Tensor b = expected.detach().to(at::kDouble).contiguous();
  return max_relative_error(std::span(a.const_data_ptr<double>(), a.numel()),
                            std::span(b.const_data_ptr<double>(), b.numel()));
}

using TensorFunction = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// Runs two functions of the same leaves and compares their results and, for one random gradient of
// the result, the gradients of every leaf that requires one.
inline void expect_same_with_gradients(const TensorFunction& actual, const TensorFunction& expected,
                                       const std::vector<at::Tensor>& inputs,
                                       double output_tolerance, double gradient_tolerance) {
  const auto run = [&](const TensorFunction& f) {
    std::vector<at::Tensor> leaves, results;
    for (const at::Tensor& input : inputs) {
      leaves.push_back(input.detach().clone().set_requires_grad(input.requires_grad()));
    }
    const at::Tensor y = f(leaves);
    results.push_back(y.detach());
    y.backward(random_leaf(y.sizes(), 4321).detach().to(y.scalar_type()));
    for (const at::Tensor& leaf : leaves) results.push_back(leaf.grad());
    return results;
  };
  const auto a = run(actual), b = run(expected);
  EXPECT_LT(tensor_error(a[0], b[0]), output_tolerance);
  for (size_t i = 1; i < a.size(); ++i) {
    ASSERT_EQ(a[i].defined(), b[i].defined()) << "gradient of input " << i - 1;
    if (!a[i].defined()) continue;
    EXPECT_LT(tensor_error(a[i], b[i]), gradient_tolerance) << "gradient of input " << i - 1;
  }
}

}  // namespace mambify::testing
