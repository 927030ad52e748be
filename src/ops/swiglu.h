// The gated activation of Llama's MLP (Shazeer 2020, arXiv 2002.05202).
#pragma once

#include <ATen/core/Tensor.h>

namespace mambify {

// silu(gate) * up, elementwise; both of the same sizes and dtype, fp32 or bf16. Differentiable in
// both; backward keeps the two inputs only and forms the rest again.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);
// The same of gate and up beside each other: [rows, 2 width] to [rows, width]. On a CUDA device
// their gradient is in one piece, too.
at::Tensor swiglu(const at::Tensor& gate_and_up);

}  // namespace mambify
