#include "ops/rms_norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/rms_norm/params.h"
#include "ops/cuda.h"
#include "ops/rows.h"

namespace mambify {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The inputs of both passes; the tensors of T but for inverse_rms, z perhaps undefined.
template <typename T>
kernels::RmsNormParams<T> params_of(const at::Tensor& x, const at::Tensor& z,
                                    const at::Tensor& weight, int64_t group_size, double eps,
                                    at::Tensor& inverse_rms) {
  kernels::RmsNormParams<T> p;
  p.rows = x.size(0);
  p.channels = x.size(1);
  p.group_size = group_size;
  p.eps = static_cast<float>(eps);
  p.x = const_data<T>(x);
  p.x_stride = x.stride(0);
  p.z = const_data<T>(z);
  p.z_stride = z.defined() ? z.stride(0) : 0;
  p.weight = const_data<T>(weight);
  p.inverse_rms = inverse_rms.defined() ? inverse_rms.data_ptr<float>() : nullptr;
  return p;
}

template <typename T>
at::Tensor run_forward(const at::Tensor& input, const at::Tensor& gate, const at::Tensor& scale,
                       int64_t group_size, double eps, at::Tensor& inverse_rms) {
  const at::Tensor x = rows_as<T>(input), z = rows_as<T>(gate), weight = contiguous_as<T>(scale);
  at::Tensor y = at::empty(x.sizes(), x.options());
  auto p = params_of<T>(x, z, weight, group_size, eps, inverse_rms);
  p.y = mutable_data<T>(y);
  if (x.is_cuda()) {
    kernels::rms_norm_forward_cuda(p, current_cuda_stream());
  } else {
    kernels::rms_norm_forward_cpu(p);
  }
  return y;
}

// inverse_rms: [T, C / group_size] to be filled, or undefined.
at::Tensor normalise(const at::Tensor& x, const at::Tensor& z, const at::Tensor& weight,
                     int64_t group_size, double eps, at::Tensor inverse_rms) {
  if (are_bf16({x, z, weight})) {
    return run_forward<kernels::Bf16>(x, z, weight, group_size, eps, inverse_rms);
  }
  return run_forward<float>(x, z, weight, group_size, eps, inverse_rms).to(x.scalar_type());
}

struct Gradients {
  at::Tensor x, z, weight;
};

template <typename T>
Gradients run_backward(const variable_list& saved, const at::Tensor& gradient, int64_t group_size,
                       bool of_weight) {
  const at::Tensor x = rows_as<T>(saved[0]), z = rows_as<T>(saved[1]);
  const at::Tensor weight = contiguous_as<T>(saved[2]), dy = contiguous_as<T>(gradient);
  at::Tensor inverse_rms = saved[3];
  Gradients d;
  kernels::RmsNormBackwardParams<T> p;
  p.forward = params_of<T>(x, z, weight, group_size, /*eps=*/0, inverse_rms);
  p.dy = const_data<T>(dy);
  d.x = at::empty(x.sizes(), x.options());
  p.dx = mutable_data<T>(d.x);
  if (z.defined()) {
    d.z = at::empty(z.sizes(), z.options());
    p.dz = mutable_data<T>(d.z);
  }
  if (of_weight) p.dweight = allocate_like(weight, d.weight);
  if (x.is_cuda()) {
    const at::Tensor scratch = scratch_beside(
        x,
        kernels::rms_norm_backward_scratch_bytes(p.forward.rows, p.forward.channels, group_size));
    kernels::rms_norm_backward_cuda(p, scratch.mutable_data_ptr(), current_cuda_stream());
  } else if constexpr (std::is_same_v<T, float>) {
    kernels::rms_norm_backward_cpu(p);
  }
  return d;
}

class RmsNorm : public torch::autograd::Function<RmsNorm> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const std::optional<at::Tensor>& gate, const at::Tensor& weight,
                            int64_t group_size, double eps) {
    const at::Tensor z = gate.value_or(at::Tensor());
    const at::Tensor inverse_rms =
        at::empty({x.size(0), x.size(1) / group_size}, x.options().dtype(at::kFloat));
    context->save_for_backward({x, z, weight, inverse_rms});
    context->saved_data["group_size"] = group_size;
    return normalise(x, z, weight, group_size, eps, inverse_rms);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &z = saved[1], &weight = saved[2];
    const bool of_weight = context->needs_input_grad(z.defined() ? 2 : 1);
    const int64_t group_size = context->saved_data["group_size"].toInt();
    const Gradients d =
        x.is_cuda() && are_bf16({x, z, weight})
            ? run_backward<kernels::Bf16>(saved, gradients[0], group_size, of_weight)
            : run_backward<float>(saved, gradients[0], group_size, of_weight);
    return {in_type_of(x, d.x), in_type_of(z, d.z), in_type_of(weight, d.weight), {}, {}};
  }
};

at::Tensor checked_rms_norm(const at::Tensor& x, const at::Tensor& z, const at::Tensor& weight,
                            int64_t group_size, double eps) {
  TORCH_CHECK(x.dim() == 2 && weight.dim() == 1 && weight.size(0) == x.size(1), "rms_norm: x is ",
              x.sizes(), ", weight ", weight.sizes(), ", expected [T, C] and [C]");
  TORCH_CHECK(group_size > 0 && x.size(1) % group_size == 0, "rms_norm: groups of ", group_size,
              " do not divide ", x.size(1), " channels");
  return needs_gradient({x, z, weight})
             ? RmsNorm::apply(x, optional_input(z), weight, group_size, eps)
             : normalise(x, z, weight, group_size, eps, /*inverse_rms=*/{});
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return checked_rms_norm(x, /*z=*/{}, weight, weight.size(0), eps);
}

at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& z, const at::Tensor& weight,
                          int64_t group_size, double eps) {
  TORCH_CHECK(z.sizes() == x.sizes(), "gated_rms_norm: z is ", z.sizes(), ", x ", x.sizes());
  return checked_rms_norm(x, z, weight, group_size, eps);
}

}  // namespace mambify
