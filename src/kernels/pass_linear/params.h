// Contract of the linear map of a decoding pass, with what stands around it in a block: RMSNorm of
// its input, and bias, gate or residual behind it.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cuda/pass.h"
#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

// Rows of a weight are padded with zeros to a multiple of this, so that they are read in vectors.
inline constexpr int64_t kLinearPad = 8;
inline constexpr int64_t padded(int64_t size) {
  return (size + kLinearPad - 1) / kLinearPad * kLinearPad;
}
// Whether the norm of so many rows can be computed with the product: every block computes it anew,
// of rows that end with a whole vector.
template <typename T>
bool pass_linear_takes_norm(int64_t rows, int64_t inputs);
// Whether the outputs of so many rows behind a norm can be convolved with the product.
template <typename T>
bool pass_linear_convolves(int64_t rows, int64_t inputs);

// The causal convolution of the first outputs with those of the three positions before, with SiLU
// behind it, as ConvStepParams says. The outputs are a ring then, which `scatter` writes, and which
// is read while kernels before still run: no other of the pass may write it.
template <typename T>
struct OutputConvolution {
  int64_t channels = 0;       // that are convolved; 0: none
  const T* weight = nullptr;  // [channels, 4]
  const T* bias = nullptr;    // [channels]
  int64_t ring_slots = 0;
  T* y = nullptr;  // ring, channels wide
  int64_t y_stride = 0;
};

// With u = norm(x) where there is a norm and x where there is none, and every result rounded to T
// (of the norm, x * weight before the product and what is behind it after):
//   y = u W^T + bias + residual,    or with `gated`    y = silu(u W_gate^T) * (u W_up^T)
// T: float or Bf16; products are summed in fp32. x and weight are aligned to 16 bytes, as is every
// row of them.
template <typename T>
struct PassLinearParams {
  int64_t rows = 0;
  int64_t inputs = 0, outputs = 0;
  const T* weight = nullptr;  // [outputs, padded(inputs)]; gated: W_gate's rows, then W_up's
  bool gated = false;
  const T* norm = nullptr;  // [inputs]; null: none here. See pass_linear_takes_norm
  float norm_eps = 0;
  const float* scales = nullptr;  // [rows], of rows whose norm pass_norm began; null: none
  const T* x = nullptr;           // [rows, inputs]
  int64_t x_stride = 0;
  const T* bias = nullptr;      // [outputs]; null: none
  const T* residual = nullptr;  // [rows, outputs], contiguous, may be y; null: none
  // Whose place row r of the other side is: x is read from tokens[r].place of a ring with `gather`,
  // y written there with `scatter`.
  const PassToken* tokens = nullptr;
  bool gather = false, scatter = false;
  T* y = nullptr;  // [rows, outputs]
  int64_t y_stride = 0;
  OutputConvolution<T> conv = {};  // see pass_linear_convolves
};

// On the device in use. The bits of a row do not depend on the others, nor on their number.
template <typename T>
void pass_linear_cuda(const PassLinearParams<T>& p, CudaStream stream);

}  // namespace mambify::kernels
