// Contract of the gated activation of Llama's MLP.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"

namespace mambify::kernels {

// y = silu(gate) * up, elementwise over contiguous memory.
template <typename T>
struct SwiGluParams {
  int64_t count = 0;
  const T* gate = nullptr;
  const T* up = nullptr;
  T* y = nullptr;
};

// Gradients of the above; both are overwritten.
template <typename T>
struct SwiGluBackwardParams {
  SwiGluParams<T> forward;  // its inputs; y unused
  const T* dy = nullptr;
  T* dgate = nullptr;
  T* dup = nullptr;
};

// The definition, for T = float and double.
template <typename T>
void swiglu_forward_reference(const SwiGluParams<T>& p);
template <typename T>
void swiglu_backward_reference(const SwiGluBackwardParams<T>& p);

// Fast: one pass over memory. Bf16 is rounded once, in y.
void swiglu_forward_cpu(const SwiGluParams<float>& p);
void swiglu_forward_cpu(const SwiGluParams<Bf16>& p);
void swiglu_backward_cpu(const SwiGluBackwardParams<float>& p);

}  // namespace mambify::kernels
