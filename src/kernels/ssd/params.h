// Contract of Mamba-2's recurrence (Dao & Gu 2024, arXiv 2405.21060) over packed documents.
#pragma once

#include <cstdint>
#include <limits>

namespace mambify::kernels {

// With s = clamp(softplus(dt + dt_bias), dt_min, dt_max), for every head and T tokens of all
// documents, h [head_dim, d_state]:
//   h_t = exp(s_t A) h_{t-1} + s_t x_t B_t^T,    y_t = h_t C_t + D x_t
// Head j reads group j / (heads / groups) of x, of B and of C.
// Strides count elements from one token to the next; what belongs to a token is contiguous.
template <typename T>
struct SsdParams {
  int64_t documents = 0;
  const int64_t* starts = nullptr;  // [documents + 1]; the last is T
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t d_state = 0;
  int64_t x_groups = 1;  // divides heads, as do the next two
  int64_t b_groups = 1;
  int64_t c_groups = 1;
  T dt_min = 0;
  T dt_max = std::numeric_limits<T>::infinity();

  const T* x = nullptr;  // [T, x_groups, head_dim]
  int64_t x_stride = 0;
  const T* dt = nullptr;  // [T, heads]
  int64_t dt_stride = 0;
  const T* dt_bias = nullptr;  // [heads]; null: zero
  const T* A = nullptr;        // [heads], negative
  const T* B = nullptr;        // [T, b_groups, d_state]
  int64_t b_stride = 0;
  const T* C = nullptr;  // [T, c_groups, d_state]
  int64_t c_stride = 0;
  const T* D = nullptr;              // [heads]; null: zero
  const T* initial_state = nullptr;  // [documents, heads, head_dim, d_state]; null: zero

  T* y = nullptr;            // [T, heads, head_dim], contiguous
  T* final_state = nullptr;  // as initial_state, and may be the same memory; null: not wanted
  // The tokens of each document that final_state is taken after, [documents]; null: all. With it
  // goes no gradient.
  const int64_t* commits = nullptr;
  // States before tokens 0, kCheckpointInterval, ... of each document (kernels/scan_checkpoints.h),
  // documents one after the other: [checkpoints, heads, head_dim, d_state]. Written by
  // ssd_forward_cpu, read by ssd_backward_cpu; null: not kept. The
  // reference has no use for them.
  T* checkpoints = nullptr;
};

// Gradients of the above for a given dy; nothing flows in through final_state. Every output is
// overwritten; none is optional but those of absent inputs. Where the step size is clamped, no
// gradient reaches dt.
template <typename T>
struct SsdBackwardParams {
  SsdParams<T> forward;   // its inputs and checkpoints; y and final_state unused
  const T* dy = nullptr;  // [T, heads, head_dim], contiguous
  T* dx = nullptr;        // [T, x_groups, head_dim], contiguous, as is all below
  T* ddt = nullptr;       // [T, heads]
  T* ddt_bias = nullptr;  // [heads]; unused without dt_bias
  T* dA = nullptr;        // [heads]
  T* dB = nullptr;        // [T, b_groups, d_state]
  T* dC = nullptr;        // [T, c_groups, d_state]
  T* dD = nullptr;        // [heads]; unused without D
};

// The definition, for T = float and double.
template <typename T>
void ssd_forward_reference(const SsdParams<T>& p);
template <typename T>
void ssd_backward_reference(const SsdBackwardParams<T>& p);

// Fast, parallel over documents, heads and blocks of a head's rows. The bits do not depend on the
// number of threads, and those of y, the state, dx, ddt, dB and dC of a document not on its
// neighbours. Token by token gives the bits of the whole sequence at once.
void ssd_forward_cpu(const SsdParams<float>& p);
void ssd_backward_cpu(const SsdBackwardParams<float>& p);

}  // namespace mambify::kernels
