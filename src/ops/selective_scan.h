// The recurrence of Mamba-1 (Gu & Dao 2023, arXiv 2312.00752) over packed documents.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/segments.h"

namespace mambify {

// T tokens of all documents, N the state size. Every tensor is fp32 or bf16; A, dt_bias and D may
// be fp32 beside bf16 activations. x, dt, B and C may be column slices of one projection: only the
// stride between tokens is free, what belongs to a token is contiguous (otherwise it is copied).
struct SelectiveScanInputs {
  at::Tensor x;        // [T, channels]
  at::Tensor dt;       // [T, channels] before bias and softplus
  at::Tensor dt_bias;  // [channels], or undefined
  at::Tensor A;        // [channels, N], negative: -exp(A_log)
  at::Tensor B;        // [T, b_groups, N]; channel d reads group d / (channels / b_groups)
  at::Tensor C;        // [T, c_groups, N]; channel d reads group d / (channels / c_groups)
  at::Tensor D;        // [channels], or undefined: the skip connection
};

// With s = softplus(dt + dt_bias), for every channel d:
//   h_t[d] = exp(s_t[d] A[d]) h_{t-1}[d] + s_t[d] x_t[d] B_t,    y_t[d] = h_t[d] . C_t + D[d]
//   x_t[d]
// Returns y [T, channels] in the dtype of x. The gate is the caller's.
//
// state: [documents, channels, N] fp32, contiguous; read as the state before each document's first
// token and overwritten with that after its last. Null: documents start from zero and the final
// state is dropped. Differentiable in every input; no gradient flows through the state.
at::Tensor selective_scan(const SelectiveScanInputs& inputs, const Segments& segments,
                          at::Tensor* state = nullptr);

}  // namespace mambify
