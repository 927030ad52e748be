#include "ops/ssd.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/scan_checkpoints.h"
#include "kernels/ssd/cuda.h"
#include "kernels/ssd/params.h"
#include "ops/cuda.h"
#include "ops/rows.h"

namespace mambify {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check(const SsdInputs& in, const Segments& segments, const at::Tensor* state) {
  TORCH_CHECK(
      in.x.dim() == 3 && in.dt.dim() == 2 && in.A.dim() == 1 && in.B.dim() == 3 && in.C.dim() == 3,
      "ssd: x ", in.x.sizes(), ", dt ", in.dt.sizes(), ", A ", in.A.sizes(), ", B ", in.B.sizes(),
      ", C ", in.C.sizes());
  const int64_t tokens = in.x.size(0), heads = in.A.size(0), P = in.x.size(2), N = in.B.size(2);
  TORCH_CHECK(in.x.is_cpu() || in.x.is_cuda(), "ssd: no kernel for device ", in.x.device());
  TORCH_CHECK(in.x.is_cpu() || segments.commits.empty(),
              "ssd: on CUDA the state is that after all tokens");
  TORCH_CHECK(tokens == segments.tokens(), "ssd: x has ", tokens, " tokens, the documents ",
              segments.tokens());
  TORCH_CHECK(in.dt.sizes() == at::IntArrayRef({tokens, heads}) && heads % in.x.size(1) == 0 &&
                  in.B.size(0) == tokens && heads % in.B.size(1) == 0 && in.C.size(0) == tokens &&
                  heads % in.C.size(1) == 0 && in.C.size(2) == N,
              "ssd: x ", in.x.sizes(), ", dt ", in.dt.sizes(), ", A ", in.A.sizes(), ", B ",
              in.B.sizes(), ", C ", in.C.sizes());
  for (const at::Tensor& vector : {in.dt_bias, in.D}) {
    TORCH_CHECK(!vector.defined() || vector.sizes() == in.A.sizes(), "ssd: dt_bias or D is ",
                vector.sizes(), " for ", heads, " heads");
  }
  TORCH_CHECK(!state || (state->scalar_type() == at::kFloat && state->is_contiguous() &&
                         state->sizes() == at::IntArrayRef({segments.documents(), heads, P, N})),
              "ssd: state is ", state->sizes(), " ", state->scalar_type());
}

SsdInputs to_float(const SsdInputs& in) {
  return {.x = float_rows(in.x),
          .dt = float_rows(in.dt),
          .dt_bias = float_contiguous(in.dt_bias),
          .A = float_contiguous(in.A),
          .B = float_rows(in.B),
          .C = float_rows(in.C),
          .D = float_contiguous(in.D),
          .dt_min = in.dt_min,
          .dt_max = in.dt_max};
}

// What the parameters of kernels on both devices have in common. in: as to_float or to_cuda returns
// it, and alive while the result is used.
template <typename T, typename Params>
void set_common(const SsdInputs& in, Params& p) {
  p.heads = in.A.size(0);
  p.head_dim = in.x.size(2);
  p.d_state = in.B.size(2);
  p.x_groups = in.x.size(1);
  p.b_groups = in.B.size(1);
  p.c_groups = in.C.size(1);
  p.dt_min = static_cast<float>(in.dt_min);
  p.dt_max = static_cast<float>(in.dt_max);
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

// in: as to_float returns it, and alive while the result is used.
kernels::SsdParams<float> make_params(const SsdInputs& in, const Segments& segments) {
  kernels::SsdParams<float> p;
  p.documents = segments.documents();
  p.starts = segments.starts.data();
  p.commits = segments.commits_or_null();
  set_common<float>(in, p);
  return p;
}

at::Tensor forward_on_cpu(const SsdInputs& inputs, const Segments& segments, at::Tensor* state,
                          at::Tensor* checkpoints) {
  const SsdInputs in = to_float(inputs);
  kernels::SsdParams<float> p = make_params(in, segments);
  at::Tensor y = at::empty({in.x.size(0), p.heads, p.head_dim}, in.x.options());
  p.y = y.mutable_data_ptr<float>();
  if (state) {
    p.initial_state = state->const_data_ptr<float>();
    p.final_state = state->mutable_data_ptr<float>();
  }
  if (checkpoints) {
    *checkpoints = at::empty(
        {kernels::checkpoint_offsets(p.starts, p.documents).back(), p.heads, p.head_dim, p.d_state},
        in.x.options());
    p.checkpoints = checkpoints->mutable_data_ptr<float>();
  }
  kernels::ssd_forward_cpu(p);
  return y.to(inputs.x.scalar_type());
}

// Gradients of `in` as to_float returns it.
SsdInputs backward_on_cpu(const SsdInputs& in, const Segments& segments,
                          const at::Tensor& checkpoints, const at::Tensor& grad) {
  const at::Tensor dy = float_contiguous(grad);
  SsdInputs out;
  kernels::SsdBackwardParams<float> b;
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
  kernels::ssd_backward_cpu(b);
  return out;
}

// What the CUDA kernels read 16 bytes at a time.
at::Tensor aligned_rows(const at::Tensor& tensor, at::ScalarType type) {
  constexpr int64_t kBytes = 16;
  const at::Tensor rows = contiguous_rows(tensor.to(type));
  const bool aligned = reinterpret_cast<uintptr_t>(rows.const_data_ptr()) % kBytes == 0 &&
                       rows.stride(0) * rows.element_size() % kBytes == 0;
  return aligned ? rows : rows.clone(at::MemoryFormat::Contiguous);
}

// The inputs as the CUDA kernels take them: activations in the dtype of x, vectors in fp32.
SsdInputs to_cuda(const SsdInputs& in) {
  const at::ScalarType type = in.x.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kBFloat16, "ssd: no CUDA kernel for ", type);
  return {.x = aligned_rows(in.x, type),
          .dt = contiguous_rows(in.dt.to(type)),
          .dt_bias = float_contiguous(in.dt_bias),
          .A = float_contiguous(in.A),
          .B = aligned_rows(in.B, type),
          .C = aligned_rows(in.C, type),
          .D = float_contiguous(in.D),
          .dt_min = in.dt_min,
          .dt_max = in.dt_max};
}

// in: as to_cuda returns it; starts as device_starts_of does. Both alive while the result is used.
template <typename T>
kernels::SsdCudaParams<T> make_cuda_params(const SsdInputs& in, const at::Tensor& starts) {
  kernels::SsdCudaParams<T> p;
  p.documents = starts.numel() - 1;
  p.tokens = in.x.size(0);
  p.starts = starts.const_data_ptr<int32_t>();
  set_common<T>(in, p);
  return p;
}

template <typename T>
at::Tensor forward_on_cuda(const SsdInputs& inputs, const at::Tensor& starts, at::Tensor* state) {
  const SsdInputs in = to_cuda(inputs);
  auto p = make_cuda_params<T>(in, starts);
  at::Tensor y = at::empty({p.tokens, p.heads, p.head_dim}, in.x.options());
  p.y = mutable_data<T>(y);
  if (state) {
    p.initial_state = state->const_data_ptr<float>();
    p.final_state = state->mutable_data_ptr<float>();
  }
  const at::Tensor scratch = scratch_beside(in.x, kernels::ssd_scratch_bytes(p));
  p.scratch = scratch.mutable_data_ptr();
  kernels::ssd_forward_cuda(p, current_cuda_stream());
  return y;
}

// initial_state: undefined where documents start from zero.
template <typename T>
SsdInputs backward_on_cuda(const SsdInputs& inputs, const at::Tensor& starts,
                           const at::Tensor& initial_state, const at::Tensor& grad) {
  const SsdInputs in = to_cuda(inputs);
  const at::Tensor dy = aligned_rows(grad.contiguous(), in.x.scalar_type());
  SsdInputs out;
  const auto allocate = [](const at::Tensor& like, at::Tensor& gradient) -> T* {
    gradient = at::empty(like.sizes(), like.options());
    return mutable_data<T>(gradient);
  };
  kernels::SsdCudaBackwardParams<T> b;
  b.forward = make_cuda_params<T>(in, starts);
  b.forward.initial_state = data_or_null(initial_state);
  b.dy = const_data<T>(dy);
  b.dx = allocate(in.x, out.x);
  b.ddt = allocate(in.dt, out.dt);
  b.ddt_bias = allocate_like(in.dt_bias, out.dt_bias);
  b.dA = allocate_like(in.A, out.A);
  b.dB = allocate(in.B, out.B);
  b.dC = allocate(in.C, out.C);
  b.dD = allocate_like(in.D, out.D);
  const at::Tensor scratch = scratch_beside(in.x, kernels::ssd_backward_scratch_bytes(b.forward));
  b.forward.scratch = scratch.mutable_data_ptr();
  kernels::ssd_backward_cuda(b, current_cuda_stream());
  return out;
}

at::Tensor run_forward(const SsdInputs& in, const Segments& segments, at::Tensor* state,
                       at::Tensor* checkpoints) {
  if (in.x.is_cpu()) return forward_on_cpu(in, segments, state, checkpoints);
  const at::Tensor starts = device_starts_of(segments, in.x.device());
  return are_bf16({in.x}) ? forward_on_cuda<kernels::Bf16>(in, starts, state)
                          : forward_on_cuda<float>(in, starts, state);
}

class Ssd : public torch::autograd::Function<Ssd> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& dt,
                            const std::optional<at::Tensor>& dt_bias, const at::Tensor& A,
                            const at::Tensor& B, const at::Tensor& C,
                            const std::optional<at::Tensor>& D, double dt_min, double dt_max,
                            const Segments& segments, at::Tensor* state) {
    const at::Tensor bias = dt_bias.value_or(at::Tensor()), skip = D.value_or(at::Tensor());
    // What backward needs of the states: the CPU's checkpoints, or those that documents started
    // from, which are overwritten.
    at::Tensor states, starts;
    if (x.is_cuda()) {
      if (state) states = state->clone();
      starts = device_starts_of(segments, x.device());
    }
    const at::Tensor y = run_forward({x, dt, bias, A, B, C, skip, dt_min, dt_max}, segments, state,
                                     x.is_cpu() ? &states : nullptr);
    context->save_for_backward({x, dt, bias, A, B, C, skip, states, starts});
    context->saved_data["dt_min"] = dt_min;
    context->saved_data["dt_max"] = dt_max;
    context->saved_data["starts"] = segments.starts;
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grad) {
    const variable_list saved = context->get_saved_variables();
    const SsdInputs raw{saved[0],
                        saved[1],
                        saved[2],
                        saved[3],
                        saved[4],
                        saved[5],
                        saved[6],
                        context->saved_data["dt_min"].toDouble(),
                        context->saved_data["dt_max"].toDouble()};
    const at::Tensor& states = saved[7];
    const at::Tensor& starts = saved[8];
    SsdInputs out;
    if (raw.x.is_cpu()) {
      const Segments segments{context->saved_data["starts"].toIntVector()};
      out = backward_on_cpu(to_float(raw), segments, states, grad[0]);
    } else if (are_bf16({raw.x})) {
      out = backward_on_cuda<kernels::Bf16>(raw, starts, states, grad[0]);
    } else {
      out = backward_on_cuda<float>(raw, starts, states, grad[0]);
    }
    return {in_type_of(raw.x, out.x),
            in_type_of(raw.dt, out.dt),
            in_type_of(raw.dt_bias, out.dt_bias),
            in_type_of(raw.A, out.A),
            in_type_of(raw.B, out.B),
            in_type_of(raw.C, out.C),
            in_type_of(raw.D, out.D),
            {},
            {},
            {},
            {}};
  }
};

}  // namespace

at::Tensor ssd(const SsdInputs& in, const Segments& segments, at::Tensor* state) {
  check(in, segments, state);
  if (!needs_gradient({in.x, in.dt, in.dt_bias, in.A, in.B, in.C, in.D})) {
    return run_forward(in, segments, state, /*checkpoints=*/nullptr);
  }
  return Ssd::apply(in.x, in.dt, optional_input(in.dt_bias), in.A, in.B, in.C, optional_input(in.D),
                    in.dt_min, in.dt_max, segments, state);
}

}  // namespace mambify
