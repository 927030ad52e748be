#include "ops/swiglu.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "kernels/swiglu/params.h"
#include "ops/cuda.h"
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

// gate, up: as contiguous_rows leaves them, of T, on a CUDA device.
template <typename T>
kernels::SwiGluRowsParams<T> params_of(const at::Tensor& gate, const at::Tensor& up) {
  const int64_t rows = gate.size(0);
  return {.rows = rows,
          .width = gate.numel() / std::max<int64_t>(rows, 1),
          .gate = const_data<T>(gate),
          .gate_stride = gate.stride(0),
          .up = const_data<T>(up),
          .up_stride = up.stride(0)};
}

template <typename T>
at::Tensor run_forward_cuda(const at::Tensor& gate_input, const at::Tensor& up_input) {
  const at::Tensor gate = rows_as<T>(gate_input), up = rows_as<T>(up_input);
  at::Tensor y = at::empty(gate.sizes(), gate.options());
  auto p = params_of<T>(gate, up);
  p.y = mutable_data<T>(y);
  kernels::swiglu_forward_cuda(p, current_cuda_stream());
  return y;
}

at::Tensor activate(const at::Tensor& gate, const at::Tensor& up) {
  const bool in_bf16 = are_bf16({gate, up});
  if (gate.is_cuda()) {
    if (in_bf16) return run_forward_cuda<kernels::Bf16>(gate, up);
    return run_forward_cuda<float>(gate, up).to(gate.scalar_type());
  }
  if (in_bf16) return run_forward<kernels::Bf16>(gate.contiguous(), up.contiguous());
  return run_forward<float>(float_contiguous(gate), float_contiguous(up)).to(gate.scalar_type());
}

// dgate, dup: of T, with the same stride between rows.
template <typename T>
void run_backward_cuda(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& gradient,
                       const at::Tensor& dgate, const at::Tensor& dup) {
  const at::Tensor dy = contiguous_as<T>(gradient);
  kernels::swiglu_backward_cuda<T>({.forward = params_of<T>(gate, up),
                                    .dy = const_data<T>(dy),
                                    .dgate = mutable_data<T>(dgate),
                                    .dup = mutable_data<T>(dup),
                                    .gradient_stride = dgate.stride(0)},
                                   current_cuda_stream());
}

template <typename T>
variable_list run_backward_cuda(const at::Tensor& gate_input, const at::Tensor& up_input,
                                const at::Tensor& gradient) {
  const at::Tensor gate = rows_as<T>(gate_input), up = rows_as<T>(up_input);
  const at::Tensor dgate = at::empty(gate.sizes(), gate.options()),
                   dup = at::empty(up.sizes(), up.options());
  run_backward_cuda<T>(gate, up, gradient, dgate, dup);
  return {in_type_of(gate_input, dgate), in_type_of(up_input, dup)};
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
    if (saved[0].is_cuda()) {
      return are_bf16({saved[0], saved[1]})
                 ? run_backward_cuda<kernels::Bf16>(saved[0], saved[1], gradients[0])
                 : run_backward_cuda<float>(saved[0], saved[1], gradients[0]);
    }
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

template <typename T>
at::Tensor run_backward_cuda(const at::Tensor& gate_and_up, const at::Tensor& gradient) {
  const at::Tensor rows = rows_as<T>(gate_and_up), d = at::empty(rows.sizes(), rows.options());
  const auto in = rows.chunk(2, /*dim=*/1), out = d.chunk(2, /*dim=*/1);
  run_backward_cuda<T>(in[0], in[1], gradient, out[0], out[1]);
  return in_type_of(gate_and_up, d);
}

// On a CUDA device.
class SwiGluOfBoth : public torch::autograd::Function<SwiGluOfBoth> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_and_up) {
    context->save_for_backward({gate_and_up});
    const auto parts = gate_and_up.chunk(2, /*dim=*/1);
    return activate(parts[0], parts[1]);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor both = context->get_saved_variables()[0];
    return {are_bf16({both}) ? run_backward_cuda<kernels::Bf16>(both, gradients[0])
                             : run_backward_cuda<float>(both, gradients[0])};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_and_up) {
  TORCH_CHECK(gate_and_up.dim() == 2 && gate_and_up.size(1) % 2 == 0, "swiglu: gate and up are ",
              gate_and_up.sizes());
  if (gate_and_up.is_cuda() && needs_gradient({gate_and_up})) {
    return SwiGluOfBoth::apply(gate_and_up);
  }
  const auto parts = gate_and_up.chunk(2, /*dim=*/1);
  return swiglu(parts[0], parts[1]);
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  TORCH_CHECK(gate.sizes() == up.sizes() && gate.scalar_type() == up.scalar_type(),
              "swiglu: gate is ", gate.sizes(), " of ", gate.scalar_type(), ", up ", up.sizes(),
              " of ", up.scalar_type());
  return needs_gradient({gate, up}) ? SwiGlu::apply(gate, up) : activate(gate, up);
}

}  // namespace mambify
