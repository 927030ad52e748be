// Contract of RMSNorm, plain and gated, over groups of channels.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

// y = u / sqrt(mean(u^2) + eps) * weight with u = x, or u = x * silu(z) when there is a gate. The
// mean is over each group of group_size neighbouring channels; plain RMSNorm is one group.
// Strides count elements from one row to the next; channels of a row are contiguous.
template <typename T>
struct RmsNormParams {
  int64_t rows = 0;
  int64_t channels = 0;
  int64_t group_size = 0;  // divides channels
  Computed<T> eps = 0;

  const T* x = nullptr;  // [rows, channels]
  int64_t x_stride = 0;
  const T* z = nullptr;  // [rows, channels]; null: no gate
  int64_t z_stride = 0;
  const T* weight = nullptr;  // [channels]

  T* y = nullptr;                      // [rows, channels], contiguous
  Computed<T>* inverse_rms = nullptr;  // [rows, channels / group_size]; null: not kept
};

// Gradients of the above; every output is overwritten.
template <typename T>
struct RmsNormBackwardParams {
  RmsNormParams<T> forward;        // its inputs; inverse_rms as the forward pass left it, y unused
  const T* dy = nullptr;           // [rows, channels], contiguous
  T* dx = nullptr;                 // [rows, channels], contiguous
  T* dz = nullptr;                 // [rows, channels], contiguous; unused without a gate
  Computed<T>* dweight = nullptr;  // [channels]; null: not wanted
};

// The definition, for T = float and double.
template <typename T>
void rms_norm_forward_reference(const RmsNormParams<T>& p);
template <typename T>
void rms_norm_backward_reference(const RmsNormBackwardParams<T>& p);

// Fast, parallel over rows. The bits of a row do not depend on its neighbours, those of dweight
// not on the number of threads. Bf16 is rounded once, in y.
void rms_norm_forward_cpu(const RmsNormParams<float>& p);
void rms_norm_forward_cpu(const RmsNormParams<Bf16>& p);
void rms_norm_backward_cpu(const RmsNormBackwardParams<float>& p);

// The same on the CUDA device in use, all pointers of its memory, T = float and Bf16. scratch: that
// many bytes, needed where dweight is wanted. The same bits in every run.
template <typename T>
void rms_norm_forward_cuda(const RmsNormParams<T>& p, CudaStream stream);
template <typename T>
void rms_norm_backward_cuda(const RmsNormBackwardParams<T>& p, void* scratch, CudaStream stream);
int64_t rms_norm_backward_scratch_bytes(int64_t rows, int64_t channels, int64_t group_size);

}  // namespace mambify::kernels
