// Contract of the gated activation of Llama's MLP.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cuda/runtime.h"

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

// The same over rows on the CUDA device in use, all pointers of its memory. gate and up are perhaps
// column slices of wider rows, as are their gradients: strides count elements from one row to the
// next. y and dy are contiguous.
template <typename T>
struct SwiGluRowsParams {
  int64_t rows = 0;
  int64_t width = 0;
  const T* gate = nullptr;  // [rows, width]
  int64_t gate_stride = 0;
  const T* up = nullptr;  // [rows, width]
  int64_t up_stride = 0;
  T* y = nullptr;  // [rows, width]
};
template <typename T>
struct SwiGluRowsBackwardParams {
  SwiGluRowsParams<T> forward;  // its inputs; y unused
  const T* dy = nullptr;        // [rows, width]
  T* dgate = nullptr;           // [rows, width]
  T* dup = nullptr;             // [rows, width]
  int64_t gradient_stride = 0;  // of dgate and dup
};

// T = float and Bf16.
template <typename T>
void swiglu_forward_cuda(const SwiGluRowsParams<T>& p, CudaStream stream);
template <typename T>
void swiglu_backward_cuda(const SwiGluRowsBackwardParams<T>& p, CudaStream stream);

}  // namespace mambify::kernels
