#include "ops/swiglu.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/swiglu/params.h"
#include "ops/rows.h"

namespace mambify {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// gate, up: contiguous, of T.
template <typename T>
at::Tensor run_forward(const at::Tensor& gate, const at::Tensor& up) {
  at::Tensor y = at::empty(gate.sizes(), gate.options());
  kernels::swiglu_forward_cpu(kernels::SwiGluParams<T>{.count = gate.numel(),
                                                       .gate = const_data<T>(gate),
                                                       .up = const_data<T>(up),
                                                       .y = mutable_data<T>(y)});
  return y;
}

at::Tensor activate(const at::Tensor& gate, const at::Tensor& up) {
  TORCH_CHECK(gate.device().is_cpu(), "swiglu: no kernel for ", gate.device());
  if (are_bf16({gate, up})) {
    return run_forward<kernels::Bf16>(gate.contiguous(), up.contiguous());
  }
  return run_forward<float>(float_contiguous(gate), float_contiguous(up)).to(gate.scalar_type());
}

class SwiGlu : public torch::autograd::Function<SwiGlu> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate,
                            const at::Tensor& up) {
    context->save_for_backward({gate, up});
    return activate(gate, up);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor gate = float_contiguous(saved[0]), up = float_contiguous(saved[1]);
    const at::Tensor dy = float_contiguous(gradients[0]);
    at::Tensor dgate, dup;
    kernels::SwiGluBackwardParams<float> p;
    p.forward.count = gate.numel();
    p.forward.gate = gate.const_data_ptr<float>();
    p.forward.up = up.const_data_ptr<float>();
    p.dy = dy.const_data_ptr<float>();
    p.dgate = allocate_like(gate, dgate);
    p.dup = allocate_like(up, dup);
    kernels::swiglu_backward_cpu(p);
    return {in_type_of(saved[0], dgate), in_type_of(saved[1], dup)};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  TORCH_CHECK(gate.sizes() == up.sizes() && gate.scalar_type() == up.scalar_type(),
              "swiglu: gate is ", gate.sizes(), " of ", gate.scalar_type(), ", up ", up.sizes(),
              " of ", up.scalar_type());
  return needs_gradient({gate, up}) ? SwiGlu::apply(gate, up) : activate(gate, up);
}

}  // namespace mambify
