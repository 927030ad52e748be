#include "ops/causal_conv1d.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/causal_conv1d/params.h"
#include "ops/rows.h"

namespace mambify {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The inputs of both passes; the tensors in fp32, as float_rows and float_contiguous leave them.
kernels::CausalConv1dParams<float> params_of(const at::Tensor& x, const at::Tensor& weight,
                                             const at::Tensor& bias,
                                             const std::vector<int64_t>& starts, bool silu,
                                             const float* window) {
  kernels::CausalConv1dParams<float> p;
  p.starts = starts.data();
  p.documents = static_cast<int64_t>(starts.size()) - 1;
  p.channels = x.size(1);
  p.width = weight.size(1);
  p.silu = silu;
  p.x = x.const_data_ptr<float>();
  p.x_stride = x.stride(0);
  p.weight = weight.const_data_ptr<float>();
  p.bias = data_or_null(bias);
  p.initial_window = window;
  return p;
}

at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    const Segments& segments, bool silu, at::Tensor* window) {
  TORCH_CHECK(x.device().is_cpu(), "causal_conv1d: no kernel for ", x.device());
  const at::Tensor rows = float_rows(x), w = float_contiguous(weight), b = float_contiguous(bias);
  at::Tensor y = at::empty(x.sizes(), rows.options());
  float* window_data = window ? window->data_ptr<float>() : nullptr;
  auto p = params_of(rows, w, b, segments.starts, silu, window_data);
  p.y = y.data_ptr<float>();
  p.y_stride = x.size(1);
  p.final_window = window_data;
  p.commits = segments.commits_or_null();
  kernels::causal_conv1d_forward_cpu(p);
  return y.to(x.scalar_type());
}

class CausalConv1d : public torch::autograd::Function<CausalConv1d> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, const Segments& segments,
                            bool silu, at::Tensor* window) {
    // The window is overwritten below, and backward needs it as it was.
    context->save_for_backward(
        {x, weight, bias.value_or(at::Tensor()), window ? window->clone() : at::Tensor()});
    context->saved_data["starts"] = segments.starts;
    context->saved_data["silu"] = silu;
    return convolve(x, weight, bias.value_or(at::Tensor()), segments, silu, window);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor x = float_rows(saved[0]), weight = float_contiguous(saved[1]);
    const at::Tensor bias = float_contiguous(saved[2]), dy = float_contiguous(gradients[0]);
    const auto starts = context->saved_data["starts"].toIntVector();
    at::Tensor dx = at::empty(x.sizes(), x.options());
    at::Tensor dweight = at::empty(weight.sizes(), weight.options());
    at::Tensor dbias = bias.defined() ? at::empty(bias.sizes(), bias.options()) : at::Tensor();

    kernels::CausalConv1dBackwardParams<float> p;
    p.forward = params_of(x, weight, bias, starts, context->saved_data["silu"].toBool(),
                          data_or_null(saved[3]));
    p.dy = dy.const_data_ptr<float>();
    p.dx = dx.data_ptr<float>();
    p.dweight = dweight.data_ptr<float>();
    p.dbias = bias.defined() ? dbias.data_ptr<float>() : nullptr;
    kernels::causal_conv1d_backward_cpu(p);
    if (bias.defined()) dbias = dbias.to(saved[2].scalar_type());
    return {dx.to(saved[0].scalar_type()), dweight.to(saved[1].scalar_type()), dbias, {}, {}, {}};
  }
};

}  // namespace

at::Tensor causal_conv1d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const Segments& segments, bool silu, at::Tensor* window) {
  TORCH_CHECK(x.dim() == 2 && weight.dim() == 2 && weight.size(0) == x.size(1),
              "causal_conv1d: x is ", x.sizes(), ", weight ", weight.sizes(),
              ", expected [T, C] and [C, W]");
  const int64_t channels = x.size(1), width = weight.size(1);
  TORCH_CHECK(width >= 1 && width <= kernels::kMaxConvWidth, "causal_conv1d: width ", width,
              " is not in [1, ", kernels::kMaxConvWidth, "]");
  TORCH_CHECK(!bias.defined() || bias.sizes() == at::IntArrayRef({channels}),
              "causal_conv1d: bias is ", bias.sizes(), ", expected [", channels, "]");
  TORCH_CHECK(segments.tokens() == x.size(0), "causal_conv1d: documents of ", segments.tokens(),
              " tokens in all, x has ", x.size(0));
  TORCH_CHECK(
      !window || (window->is_contiguous() && window->scalar_type() == at::kFloat &&
                  window->sizes() == at::IntArrayRef({segments.documents(), channels, width - 1})),
      "causal_conv1d: the window must be contiguous fp32 of [documents, C, W - 1]");
  return needs_gradient({x, weight, bias})
             ? CausalConv1d::apply(x, weight, optional_input(bias), segments, silu, window)
             : convolve(x, weight, bias, segments, silu, window);
}

}  // namespace mambify
