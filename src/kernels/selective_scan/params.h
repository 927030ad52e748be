// Contract of Mamba-1's recurrence (Gu & Dao 2023, arXiv 2312.00752) over packed documents.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

// With s = softplus(dt + dt_bias), for every channel d and T tokens of all documents:
//   h_t[d] = exp(s_t[d] A[d]) h_{t-1}[d] + s_t[d] x_t[d] B_t,    y_t[d] = h_t[d] . C_t + D[d]
//   x_t[d]
// Channel d reads group d / (channels / groups) of B and of C.
// Strides count elements from one token to the next; what belongs to a token is contiguous.
template <typename T>
struct SelectiveScanParams {
  int64_t documents = 0;
  const int64_t* starts = nullptr;  // [documents + 1]; the last is T
  int64_t channels = 0;
  int64_t d_state = 0;
  int64_t b_groups = 1;  // divides channels
  int64_t c_groups = 1;  // divides channels

  const T* x = nullptr;  // [T, channels]
  int64_t x_stride = 0;
  const T* dt = nullptr;  // [T, channels]
  int64_t dt_stride = 0;
  const T* dt_bias = nullptr;  // [channels]; null: zero
  const T* A = nullptr;        // [channels, d_state], negative
  const T* B = nullptr;        // [T, b_groups, d_state]
  int64_t b_stride = 0;
  const T* C = nullptr;  // [T, c_groups, d_state]
  int64_t c_stride = 0;
  const T* D = nullptr;              // [channels]; null: zero
  const T* initial_state = nullptr;  // [documents, channels, d_state]; null: zero

  T* y = nullptr;            // [T, channels], contiguous
  T* final_state = nullptr;  // as initial_state, and may be the same memory; null: not wanted
  // The tokens of each document that final_state is taken after, [documents]; null: all. With it
  // goes no gradient.
  const int64_t* commits = nullptr;
  // States before tokens 0, kCheckpointInterval, ... of each document (kernels/scan_checkpoints.h),
  // documents one after the other: [checkpoints, channels, d_state]. Written by
  // selective_scan_forward_cpu, read by selective_scan_backward_cpu; null: not kept. The
  // reference has no use for them.
  T* checkpoints = nullptr;
};

// Gradients of the above for a given dy; nothing flows in through final_state. Every output is
// overwritten; none is optional but those of absent inputs.
template <typename T>
struct SelectiveScanBackwardParams {
  SelectiveScanParams<T> forward;  // its inputs and checkpoints; y and final_state unused
  const T* dy = nullptr;           // [T, channels], contiguous
  T* dx = nullptr;                 // [T, channels], contiguous, as is all below
  T* ddt = nullptr;                // [T, channels]
  T* ddt_bias = nullptr;           // [channels]; unused without dt_bias
  T* dA = nullptr;                 // [channels, d_state]
  T* dB = nullptr;                 // [T, b_groups, d_state]
  T* dC = nullptr;                 // [T, c_groups, d_state]
  T* dD = nullptr;                 // [channels]; unused without D
};

// The definition, for T = float and double.
template <typename T>
void selective_scan_forward_reference(const SelectiveScanParams<T>& p);
template <typename T>
void selective_scan_backward_reference(const SelectiveScanBackwardParams<T>& p);

// Fast, parallel over documents and channels. The bits do not depend on the number of threads, and
// those of y, the state, dx, ddt, dB and dC of a document not on its neighbours. Token by token
// gives the bits of the whole sequence at once.
void selective_scan_forward_cpu(const SelectiveScanParams<float>& p);
void selective_scan_backward_cpu(const SelectiveScanBackwardParams<float>& p);

// The same on a CUDA device, from zero states that nobody asks for afterwards; all pointers are of
// its memory. T = float and Bf16: activations and their gradients; all else is fp32.
template <typename T>
struct SelectiveScanCudaParams {
  int64_t documents = 0;
  const int32_t* starts = nullptr;  // [documents + 1]
  int64_t tokens = 0;
  int64_t channels = 0;
  int64_t d_state = 0;  // at most kMostScanStates
  int64_t b_groups = 1;
  int64_t c_groups = 1;

  const T* x = nullptr;  // [T, channels]
  int64_t x_stride = 0;
  const T* dt = nullptr;  // [T, channels]
  int64_t dt_stride = 0;
  const float* dt_bias = nullptr;  // [channels]; null: zero
  const float* A = nullptr;        // [channels, d_state], negative
  const T* B = nullptr;            // [T, b_groups, d_state]
  int64_t b_stride = 0;
  const T* C = nullptr;  // [T, c_groups, d_state]
  int64_t c_stride = 0;
  const float* D = nullptr;  // [channels]; null: zero

  T* y = nullptr;  // [T, channels], contiguous
  // selective_scan_checkpoint_bytes of memory, written forward, read backward; null: not kept.
  float* checkpoints = nullptr;
};
template <typename T>
struct SelectiveScanCudaBackwardParams {
  SelectiveScanCudaParams<T> forward;  // its inputs and checkpoints; y unused
  const T* dy = nullptr;               // [T, channels], contiguous, as is all below
  T* dx = nullptr;                     // [T, channels]
  T* ddt = nullptr;                    // [T, channels]
  float* ddt_bias = nullptr;           // [channels]; null: not wanted
  float* dA = nullptr;                 // [channels, d_state]
  T* dB = nullptr;                     // [T, b_groups, d_state]
  T* dC = nullptr;                     // [T, c_groups, d_state]
  float* dD = nullptr;                 // [channels]; null: not wanted
};

inline constexpr int64_t kMostScanStates = 128;

// On the device in use. The same bits in every run, those of a document whatever its neighbours.
template <typename T>
void selective_scan_forward_cuda(const SelectiveScanCudaParams<T>& p, CudaStream stream);
template <typename T>
void selective_scan_backward_cuda(const SelectiveScanCudaBackwardParams<T>& p, void* scratch,
                                  CudaStream stream);
template <typename T>
int64_t selective_scan_checkpoint_bytes(const SelectiveScanCudaParams<T>& p);
template <typename T>
int64_t selective_scan_backward_scratch_bytes(const SelectiveScanCudaParams<T>& p);

}  // namespace mambify::kernels
