#include "ops/rotary.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <numbers>

#include "kernels/rotary/params.h"
#include "ops/cuda.h"
#include "ops/rows.h"

namespace mambify {
namespace {

at::Tensor inverse_frequencies(const RopeConfig& config, int64_t head_dim,
                               const at::Device& device) {
  const auto exponents =
      at::arange(0, head_dim, 2, at::TensorOptions(at::kFloat).device(device)) / head_dim;
  at::Tensor frequencies = at::reciprocal(at::pow(config.theta, exponents));
  if (!config.llama3) return frequencies;

  // Wavelengths beyond what the model was first trained on are stretched by `factor`, short ones
  // kept, those between interpolated.
  const Llama3Scaling& scaling = *config.llama3;
  const double context = scaling.original_max_position_embeddings;
  const at::Tensor wavelength = 2 * std::numbers::pi / frequencies;
  const at::Tensor stretched = frequencies / scaling.factor;
  const at::Tensor smooth = (context / wavelength - scaling.low_freq_factor) /
                            (scaling.high_freq_factor - scaling.low_freq_factor);
  const at::Tensor between = (1 - smooth) * stretched + smooth * frequencies;
  const at::Tensor is_long = wavelength > context / scaling.low_freq_factor;
  const at::Tensor is_short = wavelength < context / scaling.high_freq_factor;
  return at::where(is_long, stretched, at::where(is_short, frequencies, between));
}

// cos, sin: fp32, contiguous.
template <typename T>
at::Tensor run(const at::Tensor& input, const at::Tensor& cos, const at::Tensor& sin,
               bool inverse) {
  const at::Tensor x = rows_as<T>(input);
  at::Tensor y = at::empty(x.sizes(), x.options());
  const kernels::RotaryParams<T> p{.tokens = x.size(0),
                                   .heads = x.size(1),
                                   .width = x.size(2),
                                   .x = const_data<T>(x),
                                   .x_stride = x.stride(0),
                                   .cos = const_data<float>(cos),
                                   .sin = const_data<float>(sin),
                                   .inverse = inverse,
                                   .y = mutable_data<T>(y)};
  if (x.is_cuda()) {
    kernels::rotary_cuda(p, current_cuda_stream());
  } else {
    kernels::rotary_cpu(p);
  }
  return y;
}

// cos, sin: [T, head_dim / 2].
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse) {
  const at::Tensor c = float_contiguous(cos), s = float_contiguous(sin);
  if (are_bf16({x})) return run<kernels::Bf16>(x, c, s, inverse);
  return run<float>(x, c, s, inverse).to(x.scalar_type());
}

class Rotary : public torch::autograd::Function<Rotary> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& cos, const at::Tensor& sin) {
    context->save_for_backward({cos, sin});
    return rotate(x, cos, sin, /*inverse=*/false);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& dy) {
    // The transpose of a rotation turns the other way.
    const auto saved = context->get_saved_variables();
    return {rotate(dy[0], saved[0], saved[1], /*inverse=*/true), {}, {}};
  }
};

}  // namespace

RotaryTable rotary_table(const RopeConfig& config, int64_t head_dim, const at::Tensor& positions) {
  TORCH_CHECK(positions.dim() == 1 && head_dim % 2 == 0, "rotary_table: positions ",
              positions.sizes(), ", head_dim ", head_dim);
  const at::Tensor angles = positions.to(at::kFloat).unsqueeze(1) *
                            inverse_frequencies(config, head_dim, positions.device());
  if (!angles.is_cpu()) return {angles.cos(), angles.sin()};
  // One angle at a time: what LibTorch does with many depends on how many.
  RotaryTable table{at::empty_like(angles), at::empty_like(angles)};
  const float* angle = angles.const_data_ptr<float>();
  float *cos = table.cos.mutable_data_ptr<float>(), *sin = table.sin.mutable_data_ptr<float>();
  for (int64_t i = 0; i < angles.numel(); ++i) {
    cos[i] = std::cos(angle[i]);
    sin[i] = std::sin(angle[i]);
  }
  return table;
}

at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  TORCH_CHECK(x.dim() == 3 && x.size(2) % 2 == 0, "rotary: x is ", x.sizes(),
              ", expected [T, heads, head_dim]");
  TORCH_CHECK(cos.dim() == 2 && cos.size(0) == x.size(0) && cos.size(1) == x.size(2) / 2 &&
                  sin.sizes() == cos.sizes(),
              "rotary: cos is ", cos.sizes(), ", sin ", sin.sizes(), ", x ", x.sizes());
  return needs_gradient({x}) ? Rotary::apply(x, cos, sin) : rotate(x, cos, sin, /*inverse=*/false);
}

}  // namespace mambify
