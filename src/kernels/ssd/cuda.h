// Contract of Mamba-2's recurrence on a CUDA device, in training: chunks of a document's tokens are
// computed as products of matrices, and the state goes from chunk to chunk (Dao & Gu 2024, arXiv
// 2405.21060, section 6). The recurrence, the layouts and the names are those of params.h.
//
// All pointers but those of the structs themselves are to device memory. Nothing is allocated, read
// back or waited for; where documents lie is known to the device only, so that one launch serves
// every packing of as many documents and tokens. The bits of a run depend on nothing but its
// inputs, and those of y, the state, dx, ddt, dB and dC of a document not on its neighbours.
//
// head_dim and d_state are at most 128, multiples of 8 in bf16 and of 4 in fp32; widths of 64 and
// 128 are those that the kernels are made for. Rows of x, B, C and dy start at multiples of 16
// bytes. Everything is accumulated in fp32; factors of products on tensor cores (inputs, states at
// the boundaries of chunks, decayed scores) are bf16. Other sizes throw Error.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/bf16.h"
#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

// T: float or Bf16.
template <typename T>
struct SsdCudaParams {
  int64_t documents = 0;
  int64_t tokens = 0;               // of all documents
  const int32_t* starts = nullptr;  // [documents + 1]; the last is `tokens`
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t d_state = 0;
  int64_t x_groups = 1;  // divides heads, as do the next two
  int64_t b_groups = 1;
  int64_t c_groups = 1;
  float dt_min = 0;
  float dt_max = std::numeric_limits<float>::infinity();

  const T* x = nullptr;  // [tokens, x_groups, head_dim]
  int64_t x_stride = 0;
  const T* dt = nullptr;  // [tokens, heads]
  int64_t dt_stride = 0;
  const float* dt_bias = nullptr;  // [heads]; null: zero
  const float* A = nullptr;        // [heads], negative
  const T* B = nullptr;            // [tokens, b_groups, d_state]
  int64_t b_stride = 0;
  const T* C = nullptr;  // [tokens, c_groups, d_state]
  int64_t c_stride = 0;
  const float* D = nullptr;              // [heads]; null: zero
  const float* initial_state = nullptr;  // [documents, heads, head_dim, d_state]; null: zero

  T* y = nullptr;                // [tokens, heads, head_dim], contiguous
  float* final_state = nullptr;  // as initial_state, and may be the same memory; null: not wanted

  void* scratch = nullptr;  // ssd_scratch_bytes, aligned to 16 bytes; need not be kept
};

// Gradients for a given dy; nothing flows in through final_state. Every output is overwritten; none
// is optional but those of absent inputs. The states are computed again.
template <typename T>
struct SsdCudaBackwardParams {
  // Its inputs, and ssd_backward_scratch_bytes of scratch; y and final_state unused.
  SsdCudaParams<T> forward;
  const T* dy = nullptr;      // [tokens, heads, head_dim], contiguous, as is all below
  T* dx = nullptr;            // [tokens, x_groups, head_dim]
  T* ddt = nullptr;           // [tokens, heads]
  float* ddt_bias = nullptr;  // [heads]; unused without dt_bias
  float* dA = nullptr;        // [heads]
  T* dB = nullptr;            // [tokens, b_groups, d_state]
  T* dC = nullptr;            // [tokens, c_groups, d_state]
  float* dD = nullptr;        // [heads]; unused without D
};

// Of the sizes only; pointers may be null.
template <typename T>
int64_t ssd_scratch_bytes(const SsdCudaParams<T>& p);
template <typename T>
int64_t ssd_backward_scratch_bytes(const SsdCudaParams<T>& p);

template <typename T>
void ssd_forward_cuda(const SsdCudaParams<T>& p, CudaStream stream);
template <typename T>
void ssd_backward_cuda(const SsdCudaBackwardParams<T>& p, CudaStream stream);

}  // namespace mambify::kernels
