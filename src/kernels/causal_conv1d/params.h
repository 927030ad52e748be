// Contract of the causal depthwise convolution over packed documents.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

// y[t, c] = act(bias[c] + sum over k of weight[c, k] x[t - (width - 1) + k, c]), act = silu or
// nothing. Document d is tokens [starts[d], starts[d + 1]); before its first token stand the width
// - 1 columns of its initial window, oldest first, or zeros. Strides count elements from one token
// to the next; the channels of a token are contiguous.
template <typename T>
struct CausalConv1dParams {
  const int64_t* starts = nullptr;  // [documents + 1]
  int64_t documents = 0;
  int64_t channels = 0;
  int64_t width = 0;
  bool silu = false;

  const T* x = nullptr;  // [tokens, channels]
  int64_t x_stride = 0;
  const T* weight = nullptr;          // [channels, width]
  const T* bias = nullptr;            // [channels]; null: zeros
  const T* initial_window = nullptr;  // [documents, channels, width - 1]; null: zeros

  T* y = nullptr;  // [tokens, channels]
  int64_t y_stride = 0;
  // The last width - 1 inputs of each document; one shorter than that keeps the newest columns of
  // its initial window. May be the memory of initial_window. Null: not wanted.
  T* final_window = nullptr;
  // The tokens of each document that final_window is taken after, [documents]; null: all.
  const int64_t* commits = nullptr;
};

// Gradients of the above; every output is overwritten. None flows into the initial window.
template <typename T>
struct CausalConv1dBackwardParams {
  CausalConv1dParams<T> forward;  // its inputs; y and final_window unused
  const T* dy = nullptr;          // [tokens, channels], contiguous
  T* dx = nullptr;                // [tokens, channels], contiguous
  T* dweight = nullptr;           // [channels, width]
  T* dbias = nullptr;             // [channels]; null: not wanted
};

// The definition, for T = float and double.
template <typename T>
void causal_conv1d_forward_reference(const CausalConv1dParams<T>& p);
template <typename T>
void causal_conv1d_backward_reference(const CausalConv1dBackwardParams<T>& p);

// Fast; width at most kMaxConvWidth. Parallel over tokens forward, over channels backward. The bits
// of a document do not depend on its neighbours, no bits on the number of threads.
inline constexpr int64_t kMaxConvWidth = 8;
void causal_conv1d_forward_cpu(const CausalConv1dParams<float>& p);
void causal_conv1d_backward_cpu(const CausalConv1dBackwardParams<float>& p);

// The same on a CUDA device, without windows: all pointers are of its memory. T = float and Bf16.
template <typename T>
struct CausalConv1dCudaParams {
  const int32_t* starts = nullptr;  // [documents + 1]
  int64_t documents = 0;
  int64_t tokens = 0;
  int64_t channels = 0;
  int64_t width = 0;  // at most kMaxConvWidth
  bool silu = false;
  // So many neighbouring blocks of channels, each of x_block, read the same one of x.
  int64_t x_repeats = 1;
  int64_t x_block = 1;

  const T* x = nullptr;  // [tokens, channels / x_repeats]
  int64_t x_stride = 0;
  const T* weight = nullptr;  // [channels, width]
  const T* bias = nullptr;    // [channels]; null: zeros

  T* y = nullptr;  // [tokens, channels]
  int64_t y_stride = 0;
};
template <typename T>
struct CausalConv1dCudaBackwardParams {
  CausalConv1dCudaParams<T> forward;  // its inputs; y unused
  const T* dy = nullptr;              // [tokens, channels], contiguous
  T* dx = nullptr;                    // [tokens, channels], contiguous, of each repeat its own
  float* dweight = nullptr;           // [channels, width]
  float* dbias = nullptr;             // [channels]; null: not wanted
};

// On the device in use. scratch: that many bytes. The same bits in every run.
template <typename T>
void causal_conv1d_forward_cuda(const CausalConv1dCudaParams<T>& p, CudaStream stream);
template <typename T>
void causal_conv1d_backward_cuda(const CausalConv1dCudaBackwardParams<T>& p, void* scratch,
                                 CudaStream stream);
int64_t causal_conv1d_backward_scratch_bytes(int64_t tokens, int64_t channels, int64_t width);

// Writes final_window; shared by the reference and the fast version.
template <typename T>
void causal_conv1d_final_window(const CausalConv1dParams<T>& p);

}  // namespace mambify::kernels
