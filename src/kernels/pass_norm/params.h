// Contracts of the norms of a decoding pass.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cuda/pass.h"
#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

// RMSNorm in two parts: y = x * weight, rounded to T, and scales = 1 / sqrt(mean(x^2) + eps), by
// which a product with y is multiplied. With `only_scored`, row r goes to row tokens[r].scored of
// both, or nowhere when that is -1.
template <typename T>
struct PassNormParams {
  int64_t rows = 0;
  int64_t width = 0;  // a multiple of 8
  float eps = 0;
  const T* x = nullptr;       // [rows, width]
  const T* weight = nullptr;  // [width]
  const PassToken* tokens = nullptr;
  bool only_scored = false;
  T* y = nullptr;           // [rows, width]
  float* scales = nullptr;  // [rows]
};

// What stands behind Mamba-2's recurrence: u = y * silu(z), and over groups of channels
// u / sqrt(mean(u^2) + eps) * weight; either may be absent.
template <typename T>
struct PassGatedNormParams {
  int64_t rows = 0;
  int64_t width = 0;
  int64_t group = 0;  // channels, divides width
  bool gate = true, norm = true;
  float eps = 0;
  T* y = nullptr;        // [rows, width], in place
  const T* z = nullptr;  // ring: row r's is at place tokens[r].place
  int64_t z_stride = 0;
  const PassToken* tokens = nullptr;
  const T* weight = nullptr;  // [width]
};

// On the device in use. The bits of a row do not depend on the others.
template <typename T>
void pass_norm_cuda(const PassNormParams<T>& p, const Prefetch& next, CudaStream stream);
template <typename T>
void pass_gated_norm_cuda(const PassGatedNormParams<T>& p, const Prefetch& next, CudaStream stream);

}  // namespace mambify::kernels
