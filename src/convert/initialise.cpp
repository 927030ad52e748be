#include "convert/initialise.h"

#include <ATen/ATen.h>

#include <cmath>

namespace mambify {

at::Tensor LayerInitialiser::uniform(DrawnParameter parameter, at::IntArrayRef shape, double low,
                                     double high) const {
  at::Tensor result = at::empty(shape, at::kFloat);
  float* values = result.data_ptr<float>();
  for (int64_t i = 0; i < result.numel(); ++i) {
    const double u = random_.uniform(static_cast<uint32_t>(parameter), static_cast<uint32_t>(i));
    values[i] = static_cast<float>(low + (high - low) * u);
  }
  return result;
}

at::Tensor LayerInitialiser::linear(DrawnParameter parameter, int64_t rows, int64_t columns) const {
  const double bound = 1 / std::sqrt(static_cast<double>(columns));
  return uniform(parameter, {rows, columns}, -bound, bound);
}

at::Tensor LayerInitialiser::step_size_bias(int64_t size) const {
  const at::Tensor log_dt =
      uniform(DrawnParameter::dt_bias, {size}, std::log(1e-3), std::log(0.1)).to(at::kDouble);
  const at::Tensor dt = log_dt.exp();
  // softplus^-1(dt) = log(exp(dt) - 1), in a form that keeps small dt exact
  return (dt + at::log(-at::expm1(-dt))).to(at::kFloat);
}

}  // namespace mambify
