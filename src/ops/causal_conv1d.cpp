#include "ops/causal_conv1d.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/causal_conv1d/params.h"
#include "ops/cuda.h"
#include "ops/rows.h"

namespace mambify {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The inputs of both passes on the CPU; the tensors in fp32, as float_rows and float_contiguous
// leave them.
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

// The inputs of both passes on a CUDA device; the tensors of T, as rows_as and contiguous_as leave
// them. starts: [documents + 1] int32.
template <typename T>
kernels::CausalConv1dCudaParams<T> params_of(const at::Tensor& x, const at::Tensor& weight,
                                             const at::Tensor& bias, const at::Tensor& starts,
                                             bool silu, int64_t x_block) {
  kernels::CausalConv1dCudaParams<T> p;
  p.starts = starts.const_data_ptr<int32_t>();
  p.documents = starts.size(0) - 1;
  p.tokens = x.size(0);
  p.channels = weight.size(0);
  p.width = weight.size(1);
  p.silu = silu;
  p.x_repeats = p.channels / x.size(1);
  p.x_block = x_block;
  p.x = const_data<T>(x);
  p.x_stride = x.stride(0);
  p.weight = const_data<T>(weight);
  p.bias = const_data<T>(bias);
  return p;
}

template <typename T>
at::Tensor convolve_cuda(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const at::Tensor& starts, bool silu, int64_t x_block) {
  const at::Tensor rows = rows_as<T>(x), w = contiguous_as<T>(weight), b = contiguous_as<T>(bias);
  auto p = params_of<T>(rows, w, b, starts, silu, x_block);
  at::Tensor y = at::empty({p.tokens, p.channels}, rows.options());
  p.y = mutable_data<T>(y);
  p.y_stride = p.channels;
  kernels::causal_conv1d_forward_cuda(p, current_cuda_stream());
  return y;
}

// Where there is a kernel for the activations' dtype, the parameters take it, too.
at::Tensor convolve_cuda(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const at::Tensor& starts, bool silu, int64_t x_block) {
  if (are_bf16({x})) return convolve_cuda<kernels::Bf16>(x, weight, bias, starts, silu, x_block);
  return convolve_cuda<float>(x, weight, bias, starts, silu, x_block).to(x.scalar_type());
}

struct Gradients {
  at::Tensor x, weight, bias;
};

template <typename T>
Gradients run_backward_cuda(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& starts, bool silu, int64_t x_block,
                            const at::Tensor& gradient) {
  const at::Tensor rows = rows_as<T>(x), w = contiguous_as<T>(weight), b = contiguous_as<T>(bias);
  const at::Tensor dy = contiguous_as<T>(gradient);
  Gradients d{.x = at::empty(dy.sizes(), rows.options()), .weight = {}, .bias = {}};
  kernels::CausalConv1dCudaBackwardParams<T> p;
  p.forward = params_of<T>(rows, w, b, starts, silu, x_block);
  p.dy = const_data<T>(dy);
  p.dx = mutable_data<T>(d.x);
  p.dweight = allocate_like(w, d.weight);
  p.dbias = allocate_like(b, d.bias);
  const at::Tensor scratch =
      scratch_beside(rows, kernels::causal_conv1d_backward_scratch_bytes(
                               p.forward.tokens, p.forward.channels, p.forward.width));
  kernels::causal_conv1d_backward_cuda(p, scratch.mutable_data_ptr(), current_cuda_stream());
  if (p.forward.x_repeats > 1) {
    d.x = d.x.view({x.size(0), x.size(1) / x_block, p.forward.x_repeats, x_block})
              .sum(2)
              .view(x.sizes());
  }
  return d;
}

class CausalConv1d : public torch::autograd::Function<CausalConv1d> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, const Segments& segments,
                            bool silu, at::Tensor* window, int64_t x_block) {
    context->saved_data["silu"] = silu;
    if (x.is_cuda()) {
      const at::Tensor starts = device_starts_of(segments, x.device());
      context->save_for_backward({x, weight, bias.value_or(at::Tensor()), starts});
      context->saved_data["x_block"] = x_block;
      return convolve_cuda(x, weight, bias.value_or(at::Tensor()), starts, silu, x_block);
    }
    // The window is overwritten below, and backward needs it as it was.
    context->save_for_backward(
        {x, weight, bias.value_or(at::Tensor()), window ? window->clone() : at::Tensor()});
    context->saved_data["starts"] = segments.starts;
    return convolve(x, weight, bias.value_or(at::Tensor()), segments, silu, window);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    if (saved[0].is_cuda()) return backward_cuda(saved, context, gradients[0]);
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
    return {
        dx.to(saved[0].scalar_type()), dweight.to(saved[1].scalar_type()), dbias, {}, {}, {}, {}};
  }

 private:
  static variable_list backward_cuda(const variable_list& saved, AutogradContext* context,
                                     const at::Tensor& dy) {
    const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2], &starts = saved[3];
    const bool silu = context->saved_data["silu"].toBool();
    const int64_t x_block = context->saved_data["x_block"].toInt();
    const Gradients d =
        are_bf16({x}) ? run_backward_cuda<kernels::Bf16>(x, weight, bias, starts, silu, x_block, dy)
                      : run_backward_cuda<float>(x, weight, bias, starts, silu, x_block, dy);
    return {
        in_type_of(x, d.x), in_type_of(weight, d.weight), in_type_of(bias, d.bias), {}, {}, {}, {}};
  }
};

bool is_repeated(int64_t x_channels, int64_t channels, int64_t x_block) {
  return channels == x_channels ||
         (x_channels > 0 && channels % x_channels == 0 && x_block > 0 && x_channels % x_block == 0);
}

// [T, x_channels] to [T, channels].
at::Tensor repeated(const at::Tensor& x, int64_t channels, int64_t x_block) {
  if (x.size(1) == channels) return x;
  return x.unflatten(1, {x.size(1) / x_block, 1, x_block})
      .expand({-1, -1, channels / x.size(1), -1})
      .reshape({x.size(0), channels});
}

}  // namespace

at::Tensor causal_conv1d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const Segments& segments, bool silu, at::Tensor* window, int64_t x_block) {
  TORCH_CHECK(x.dim() == 2 && weight.dim() == 2 && is_repeated(x.size(1), weight.size(0), x_block),
              "causal_conv1d: x is ", x.sizes(), " in blocks of ", x_block, ", weight ",
              weight.sizes(), ", expected [T, C / repeats] and [C, W]");
  const int64_t channels = weight.size(0), width = weight.size(1);
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
  TORCH_CHECK(!window || x.is_cpu(), "causal_conv1d: no window on ", x.device());
  if (x.is_cuda() && !needs_gradient({x, weight, bias})) {
    return convolve_cuda(x, weight, bias, device_starts_of(segments, x.device()), silu, x_block);
  }
  const at::Tensor input = x.is_cuda() ? x : repeated(x, channels, x_block);
  return needs_gradient({x, weight, bias})
             ? CausalConv1d::apply(input, weight, optional_input(bias), segments, silu, window,
                                   x_block)
             : convolve(input, weight, bias, segments, silu, window);
}

}  // namespace mambify
