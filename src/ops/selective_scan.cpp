#include "ops/selective_scan.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/scan_checkpoints.h"
#include "kernels/selective_scan/params.h"
#include "ops/cuda.h"
#include "ops/rows.h"

namespace mambify {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check(const SelectiveScanInputs& in, const Segments& segments, const at::Tensor* state) {
  TORCH_CHECK(in.x.dim() == 2 && in.A.dim() == 2 && in.B.dim() == 3 && in.C.dim() == 3,
              "selective_scan: x ", in.x.sizes(), ", A ", in.A.sizes(), ", B ", in.B.sizes(),
              ", C ", in.C.sizes());
  const int64_t tokens = in.x.size(0), channels = in.x.size(1), N = in.A.size(1);
  TORCH_CHECK(in.x.is_cpu() || (in.x.is_cuda() && !state), "selective_scan: no kernel for device ",
              in.x.device(), state ? " that takes a state" : "");
  TORCH_CHECK(tokens == segments.tokens(), "selective_scan: x has ", tokens,
              " tokens, the documents ", segments.tokens());
  TORCH_CHECK(in.dt.sizes() == in.x.sizes() && in.A.size(0) == channels && in.B.size(0) == tokens &&
                  channels % in.B.size(1) == 0 && in.B.size(2) == N && in.C.size(0) == tokens &&
                  channels % in.C.size(1) == 0 && in.C.size(2) == N,
              "selective_scan: x ", in.x.sizes(), ", dt ", in.dt.sizes(), ", A ", in.A.sizes(),
              ", B ", in.B.sizes(), ", C ", in.C.sizes());
  for (const at::Tensor& vector : {in.dt_bias, in.D}) {
    TORCH_CHECK(!vector.defined() || (vector.dim() == 1 && vector.size(0) == channels),
                "selective_scan: dt_bias or D is ", vector.sizes(), " for ", channels, " channels");
  }
  TORCH_CHECK(!state || (state->scalar_type() == at::kFloat && state->is_contiguous() &&
                         state->sizes() == at::IntArrayRef({segments.documents(), channels, N})),
              "selective_scan: state is ", state->sizes(), " ", state->scalar_type());
}

// As kernels take them: activations in T, parameters in fp32.
template <typename T>
SelectiveScanInputs prepared(const SelectiveScanInputs& in) {
  return {.x = rows_as<T>(in.x),
          .dt = rows_as<T>(in.dt),
          .dt_bias = float_contiguous(in.dt_bias),
          .A = float_contiguous(in.A),
          .B = rows_as<T>(in.B),
          .C = rows_as<T>(in.C),
          .D = float_contiguous(in.D)};
}

// What the parameters of kernels on both devices have in common. in: as `prepared` returns it, and
// alive while the result is used.
template <typename T, typename Params>
void set_common(const SelectiveScanInputs& in, Params& p) {
  p.channels = in.x.size(1);
  p.d_state = in.A.size(1);
  p.b_groups = in.B.size(1);
  p.c_groups = in.C.size(1);
  p.x = const_data<T>(in.x);
  p.x_stride = in.x.stride(0);
  p.dt = const_data<T>(in.dt);
  p.dt_stride = in.dt.stride(0);
  p.dt_bias = data_or_null(in.dt_bias);
  p.A = in.A.const_data_ptr<float>();
  p.B = const_data<T>(in.B);
  p.b_stride = in.B.stride(0);
  p.C = const_data<T>(in.C);
  p.c_stride = in.C.stride(0);
  p.D = data_or_null(in.D);
}

kernels::SelectiveScanParams<float> make_params(const SelectiveScanInputs& in,
                                                const Segments& segments) {
  kernels::SelectiveScanParams<float> p;
  p.documents = segments.documents();
  p.starts = segments.starts.data();
  p.commits = segments.commits_or_null();
  set_common<float>(in, p);
  return p;
}

at::Tensor run_forward(const SelectiveScanInputs& inputs, const Segments& segments,
                       at::Tensor* state, at::Tensor* checkpoints) {
  const SelectiveScanInputs in = prepared<float>(inputs);
  kernels::SelectiveScanParams<float> p = make_params(in, segments);
  at::Tensor y = at::empty({in.x.size(0), p.channels}, in.x.options());
  p.y = y.mutable_data_ptr<float>();
  if (state) {
    p.initial_state = state->const_data_ptr<float>();
    p.final_state = state->mutable_data_ptr<float>();
  }
  if (checkpoints) {
    *checkpoints = at::empty(
        {kernels::checkpoint_offsets(p.starts, p.documents).back(), p.channels, p.d_state},
        in.x.options());
    p.checkpoints = checkpoints->mutable_data_ptr<float>();
  }
  kernels::selective_scan_forward_cpu(p);
  return y.to(inputs.x.scalar_type());
}

// starts: [documents + 1] int32, alive while the result is used.
template <typename T>
kernels::SelectiveScanCudaParams<T> make_cuda_params(const SelectiveScanInputs& in,
                                                     const at::Tensor& starts) {
  kernels::SelectiveScanCudaParams<T> p;
  p.documents = starts.size(0) - 1;
  p.starts = starts.const_data_ptr<int32_t>();
  p.tokens = in.x.size(0);
  set_common<T>(in, p);
  return p;
}

template <typename T>
at::Tensor run_forward_cuda(const SelectiveScanInputs& inputs, const at::Tensor& starts,
                            at::Tensor* checkpoints) {
  const SelectiveScanInputs in = prepared<T>(inputs);
  auto p = make_cuda_params<T>(in, starts);
  at::Tensor y = at::empty(in.x.sizes(), in.x.options());
  p.y = mutable_data<T>(y);
  if (checkpoints) {
    *checkpoints = scratch_beside(in.x, kernels::selective_scan_checkpoint_bytes(p));
    p.checkpoints = static_cast<float*>(checkpoints->mutable_data_ptr());
  }
  kernels::selective_scan_forward_cuda(p, current_cuda_stream());
  return y;
}

at::Tensor run_forward_cuda(const SelectiveScanInputs& in, const at::Tensor& starts,
                            at::Tensor* checkpoints) {
  if (are_bf16({in.x})) return run_forward_cuda<kernels::Bf16>(in, starts, checkpoints);
  return run_forward_cuda<float>(in, starts, checkpoints).to(in.x.scalar_type());
}

template <typename T>
SelectiveScanInputs run_backward_cuda(const SelectiveScanInputs& inputs,
                                      const at::Tensor& checkpoints, const at::Tensor& starts,
                                      const at::Tensor& gradient) {
  const SelectiveScanInputs in = prepared<T>(inputs);
  const at::Tensor dy = contiguous_as<T>(gradient);
  const auto allocate = [](const at::Tensor& like) {
    return at::empty(like.sizes(), like.options());
  };
  SelectiveScanInputs out;
  kernels::SelectiveScanCudaBackwardParams<T> b;
  b.forward = make_cuda_params<T>(in, starts);
  b.forward.checkpoints = static_cast<float*>(checkpoints.mutable_data_ptr());
  b.dy = const_data<T>(dy);
  b.dx = mutable_data<T>(out.x = allocate(in.x));
  b.ddt = mutable_data<T>(out.dt = allocate(in.dt));
  b.dB = mutable_data<T>(out.B = allocate(in.B));
  b.dC = mutable_data<T>(out.C = allocate(in.C));
  b.ddt_bias = allocate_like(in.dt_bias, out.dt_bias);
  b.dA = allocate_like(in.A, out.A);
  b.dD = allocate_like(in.D, out.D);
  const at::Tensor scratch =
      scratch_beside(in.x, kernels::selective_scan_backward_scratch_bytes(b.forward));
  kernels::selective_scan_backward_cuda(b, scratch.mutable_data_ptr(), current_cuda_stream());
  return out;
}

SelectiveScanInputs run_backward(const SelectiveScanInputs& raw, const at::Tensor& checkpoints,
                                 const Segments& segments, const at::Tensor& gradient) {
  const SelectiveScanInputs in = prepared<float>(raw);
  const at::Tensor dy = float_contiguous(gradient);
  SelectiveScanInputs out;
  kernels::SelectiveScanBackwardParams<float> b;
  b.forward = make_params(in, segments);
  b.forward.checkpoints = checkpoints.mutable_data_ptr<float>();
  b.dy = dy.const_data_ptr<float>();
  b.dx = allocate_like(in.x, out.x);
  b.ddt = allocate_like(in.dt, out.dt);
  b.ddt_bias = allocate_like(in.dt_bias, out.dt_bias);
  b.dA = allocate_like(in.A, out.A);
  b.dB = allocate_like(in.B, out.B);
  b.dC = allocate_like(in.C, out.C);
  b.dD = allocate_like(in.D, out.D);
  kernels::selective_scan_backward_cpu(b);
  return out;
}

class SelectiveScan : public torch::autograd::Function<SelectiveScan> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& dt,
                            const std::optional<at::Tensor>& dt_bias, const at::Tensor& A,
                            const at::Tensor& B, const at::Tensor& C,
                            const std::optional<at::Tensor>& D, const Segments& segments,
                            at::Tensor* state) {
    const at::Tensor bias = dt_bias.value_or(at::Tensor()), skip = D.value_or(at::Tensor());
    const SelectiveScanInputs in{x, dt, bias, A, B, C, skip};
    at::Tensor checkpoints, y, starts;
    if (x.is_cuda()) {
      starts = device_starts_of(segments, x.device());
      y = run_forward_cuda(in, starts, &checkpoints);
    } else {
      y = run_forward(in, segments, state, &checkpoints);
      context->saved_data["starts"] = segments.starts;
    }
    context->save_for_backward({x, dt, bias, A, B, C, skip, checkpoints, starts});
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grad) {
    const variable_list saved = context->get_saved_variables();
    const SelectiveScanInputs raw{saved[0], saved[1], saved[2], saved[3],
                                  saved[4], saved[5], saved[6]};
    const at::Tensor &checkpoints = saved[7], &starts = saved[8];
    SelectiveScanInputs out;
    if (!raw.x.is_cuda()) {
      const Segments segments{context->saved_data["starts"].toIntVector()};
      out = run_backward(raw, checkpoints, segments, grad[0]);
    } else if (are_bf16({raw.x})) {
      out = run_backward_cuda<kernels::Bf16>(raw, checkpoints, starts, grad[0]);
    } else {
      out = run_backward_cuda<float>(raw, checkpoints, starts, grad[0]);
    }
    return {in_type_of(raw.x, out.x),
            in_type_of(raw.dt, out.dt),
            in_type_of(raw.dt_bias, out.dt_bias),
            in_type_of(raw.A, out.A),
            in_type_of(raw.B, out.B),
            in_type_of(raw.C, out.C),
            in_type_of(raw.D, out.D),
            {},
            {}};
  }
};

}  // namespace

at::Tensor selective_scan(const SelectiveScanInputs& in, const Segments& segments,
                          at::Tensor* state) {
  check(in, segments, state);
  if (!needs_gradient({in.x, in.dt, in.dt_bias, in.A, in.B, in.C, in.D})) {
    if (in.x.is_cuda()) {
      return run_forward_cuda(in, device_starts_of(segments, in.x.device()),
                              /*checkpoints=*/nullptr);
    }
    return run_forward(in, segments, state, /*checkpoints=*/nullptr);
  }
  return SelectiveScan::apply(in.x, in.dt, optional_input(in.dt_bias), in.A, in.B, in.C,
                              optional_input(in.D), segments, state);
}

}  // namespace mambify
