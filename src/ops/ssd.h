// The recurrence of Mamba-2, state space duality (Dao & Gu 2024, arXiv 2405.21060), over packed
// documents.
#pragma once

#include <ATen/core/Tensor.h>

#include <limits>

#include "ops/segments.h"

namespace mambify {

// T tokens of all documents, H heads of width P, N the state size. x, B and C each have their own
// number of groups, a divisor of H; head j reads group j / (H / groups). A layer converted from
// attention with G key/value heads has x_groups = b_groups = G and c_groups = H; one trained as
// Mamba-2 has x_groups = H and b_groups = c_groups = n_groups. Every tensor is fp32 or bf16; A,
// dt_bias and D may be fp32 beside bf16 activations. x, dt, B and C may be column slices of one
// projection: only the stride between tokens is free (other layouts are copied).
struct SsdInputs {
  at::Tensor x;        // [T, x_groups, P]
  at::Tensor dt;       // [T, H] before bias and softplus
  at::Tensor dt_bias;  // [H], or undefined
  at::Tensor A;        // [H], negative: -exp(A_log)
  at::Tensor B;        // [T, b_groups, N]
  at::Tensor C;        // [T, c_groups, N]
  at::Tensor D;        // [H], or undefined: the skip connection
  // Limits of the step size after softplus (time_step_limit in Mamba-2 configurations).
  double dt_min = 0;
  double dt_max = std::numeric_limits<double>::infinity();
};

// With s = clamp(softplus(dt + dt_bias), dt_min, dt_max), for every head:
//   h_t = exp(s_t A) h_{t-1} + s_t x_t B_t^T,    y_t = h_t C_t + D x_t
// Returns y [T, H, P] in the dtype of x. Gate and norm are the caller's.
//
// state: [documents, H, P, N] fp32, contiguous; read as the state before each document's first
// token and overwritten with that after its last. Null: documents start from zero and the final
// state is dropped. Differentiable in every tensor; no gradient flows through the state.
at::Tensor ssd(const SsdInputs& inputs, const Segments& segments, at::Tensor* state = nullptr);

}  // namespace mambify
