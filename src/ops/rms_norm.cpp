#include "ops/rms_norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/rms_norm/params.h"
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
at::Tensor run_forward(const at::Tensor& x, const at::Tensor& z, const at::Tensor& weight,
                       int64_t group_size, double eps, at::Tensor& inverse_rms) {
  at::Tensor y = at::empty(x.sizes(), x.options());
  auto p = params_of<T>(x, z, weight, group_size, eps, inverse_rms);
  p.y = mutable_data<T>(y);
  kernels::rms_norm_forward_cpu(p);
  return y;
}

// inverse_rms: [T, C / group_size] to be filled, or undefined.
at::Tensor normalise(const at::Tensor& x, const at::Tensor& z, const at::Tensor& weight,
                     int64_t group_size, double eps, at::Tensor inverse_rms) {
  TORCH_CHECK(x.device().is_cpu(), "rms_norm: no kernel for ", x.device());
  if (are_bf16({x, z, weight})) {
    return run_forward<kernels::Bf16>(contiguous_rows(x), z.defined() ? contiguous_rows(z) : z,
                                      weight.contiguous(), group_size, eps, inverse_rms);
  }
  return run_forward<float>(float_rows(x), z.defined() ? float_rows(z) : z,
                            float_contiguous(weight), group_size, eps, inverse_rms)
      .to(x.scalar_type());
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
    const at::Tensor x = float_rows(saved[0]),
                     z = saved[1].defined() ? float_rows(saved[1]) : at::Tensor();
    const at::Tensor weight = float_contiguous(saved[2]), dy = float_contiguous(gradients[0]);
    at::Tensor inverse_rms = saved[3];
    at::Tensor dx = at::empty(x.sizes(), x.options());
    at::Tensor dz = z.defined() ? at::empty(z.sizes(), z.options()) : at::Tensor();
    at::Tensor dweight;
    if (context->needs_input_grad(z.defined() ? 2 : 1))
      dweight = at::empty(weight.sizes(), weight.options());

    kernels::RmsNormBackwardParams<float> p;
    p.forward = params_of<float>(x, z, weight, context->saved_data["group_size"].toInt(),
                                 /*eps=*/0, inverse_rms);
    p.dy = dy.const_data_ptr<float>();
    p.dx = dx.data_ptr<float>();
    p.dz = z.defined() ? dz.data_ptr<float>() : nullptr;
    p.dweight = dweight.defined() ? dweight.data_ptr<float>() : nullptr;
    kernels::rms_norm_backward_cpu(p);
    if (dz.defined()) dz = dz.to(saved[1].scalar_type());
    if (dweight.defined()) dweight = dweight.to(saved[2].scalar_type());
    return {dx.to(saved[0].scalar_type()), dz, dweight, {}, {}};
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
