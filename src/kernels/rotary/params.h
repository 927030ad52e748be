// Contract of rotary position embedding (Su et al. 2021, arXiv 2104.09864).
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

// Turns the pair (i, i + width / 2) of every head of token t by its angle i:
//   y[i] = x[i] cos - x[i + half] sin,    y[i + half] = x[i + half] cos + x[i] sin
// Strides count elements from one token to the next; what belongs to a token is contiguous.
template <typename T>
struct RotaryParams {
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t width = 0;     // of a head, even
  const T* x = nullptr;  // [tokens, heads, width]
  int64_t x_stride = 0;
  const Computed<T>* cos = nullptr;  // [tokens, width / 2], contiguous, as is sin
  const Computed<T>* sin = nullptr;
  bool inverse = false;  // turn the other way: the gradient
  T* y = nullptr;        // [tokens, heads, width], contiguous
};

// The definition, for T = float and double.
template <typename T>
void rotary_reference(const RotaryParams<T>& p);

// Fast, parallel over tokens. The bits of a token do not depend on the others. Bf16 is rounded
// once, in y.
void rotary_cpu(const RotaryParams<float>& p);
void rotary_cpu(const RotaryParams<Bf16>& p);

// The same on the CUDA device in use, all pointers of its memory, T = float and Bf16.
template <typename T>
void rotary_cuda(const RotaryParams<T>& p, CudaStream stream);

}  // namespace mambify::kernels
