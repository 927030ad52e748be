// Contract of the multi-step kernels (Algorithm 2 of arXiv 2408.15237): convolution, recurrence and
// skip connection of a Mamba layer for the tokens of one decoding pass. A sequence first replays
// its pending tokens from a ring of inputs and then runs its new ones; the state is read once, and
// written once as it is after `commit` tokens. Bits of a token do not depend on where in a pass, or
// in which pass, it is computed.
//
// A ring holds what a projection computed of the last tokens of every state row: the input of
// position p is at place row * ring_slots + p % ring_slots. Strides count elements from one place
// to the next. Positions before 0 are zeros to the convolution, and a sequence with base 0 starts
// from a state of zeros, whatever is in memory.
//
// On a device, kernels read `sequences` and the state while those before them in their stream still
// run: no kernel of the pass but the one that steps a layer, and that once, may write them. Copies,
// and the passes before, are not overlapped with.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/bf16.h"
#include "kernels/cuda/pass.h"
#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

// T: float or Bf16. Everything is computed in fp32; the outputs of convolution and of rotary
// embedding and y are rounded to T, where a model that computes in T rounds them.
template <typename T>
struct Mamba2StepParams {
  const PassSequence* sequences = nullptr;  // [n_sequences], in device memory
  int64_t n_sequences = 0;
  int64_t ring_slots = 0;

  int64_t heads = 0, head_dim = 0, d_state = 0;      // head_dim and d_state at most 128 each
  int64_t x_groups = 1, b_groups = 1, c_groups = 1;  // head j reads group j / (heads / groups)
  int64_t d_conv = 4;                                // at most 4
  bool conv_activation = true;                       // SiLU behind the convolution
  float dt_min = 0, dt_max = std::numeric_limits<float>::infinity();

  // Ring of [x: x_groups head_dim | B: b_groups d_state | C: c_groups d_state | dt: heads].
  const T* inputs = nullptr;
  int64_t input_stride = 0;
  const T* conv_weight = nullptr;  // [channels of x, B and C, d_conv]
  const T* conv_bias = nullptr;    // [channels]
  const float* dt_bias = nullptr;  // [heads]
  const float* A = nullptr;        // [heads], negative
  const float* D = nullptr;        // [heads]
  // Angles' cos and sin by position, [positions, d_state / 2] each: B and C are turned by them.
  // Null: not turned.
  const float* cos = nullptr;
  const float* sin = nullptr;

  float* state = nullptr;  // [rows, heads, head_dim, d_state]
  T* y = nullptr;          // [tokens of the pass, heads, head_dim], the new tokens' only
};

template <typename T>
struct Mamba1StepParams {
  const PassSequence* sequences = nullptr;
  int64_t n_sequences = 0;
  int64_t ring_slots = 0;

  int64_t d_inner = 0, d_xb = 0, d_state = 0;  // d_state at most 128
  int64_t b_groups = 1, c_groups = 1;          // channel d reads group d / (d_inner / groups)
  int64_t d_conv = 4;

  // Rings. Channel d of d_inner is convolved from x[(d / d_state / (d_inner / d_xb)) * d_state +
  // d % d_state]; where d_xb = d_inner, from x[d].
  const T* x = nullptr;  // d_xb wide
  int64_t x_stride = 0;
  const T* z = nullptr;  // d_inner wide; the gate, of new tokens only
  int64_t z_stride = 0;
  T* dt = nullptr;  // d_inner wide, before bias and softplus; the new tokens' may be written here
  int64_t dt_stride = 0;
  const T* B = nullptr;  // [b_groups, d_state]
  int64_t b_stride = 0;
  const T* C = nullptr;  // [c_groups, d_state]
  int64_t c_stride = 0;
  const T* conv_weight = nullptr;  // [d_inner, d_conv]
  const T* conv_bias = nullptr;    // [d_inner]
  // Ring, d_inner wide, of what x has been convolved to; null: it is convolved here.
  const T* convolved = nullptr;
  int64_t convolved_stride = 0;
  const float* dt_bias = nullptr;  // [d_inner]
  const float* A = nullptr;        // [d_inner, d_state], negative
  const float* D = nullptr;        // [d_inner]

  float* state = nullptr;  // [rows, d_inner, d_state]
  T* y = nullptr;          // [tokens of the pass, d_inner]: T(T(y) * silu(z)), the new tokens' only

  // The step may also project dt of the new tokens, low W^T with pass_linear's bits, and write it
  // to its ring: see mamba1_step_projects_dt.
  const T* low = nullptr;  // ring, rank wide, aligned to 16 bytes as every row of it is
  int64_t low_stride = 0;
  int64_t rank = 0;
  const T* dt_weight = nullptr;  // [d_inner, padded(rank)]; null: dt is in its ring
};

// The convolution alone, with SiLU, of the new tokens: where B, C and dt are projected from it.
// From ring to ring.
template <typename T>
struct ConvStepParams {
  const PassSequence* sequences = nullptr;
  int64_t n_sequences = 0;
  int64_t ring_slots = 0;
  int64_t channels = 0;
  int64_t d_conv = 4;
  int64_t max_tokens = 64;  // most new tokens of one sequence
  const T* x = nullptr;     // ring, channels wide
  int64_t x_stride = 0;
  const T* weight = nullptr;  // [channels, d_conv]
  const T* bias = nullptr;    // [channels]
  T* y = nullptr;             // ring, channels wide
  int64_t y_stride = 0;
};

// Whether a step of no more than `longest` new tokens of a sequence can project dt on a device, and
// is the faster for it: few tokens of few sequences, 16 states, bf16, x convolved before. Of p,
// sizes, rank, n_sequences and convolved are set.
template <typename T>
bool mamba1_step_projects_dt(const Mamba1StepParams<T>& p, int64_t longest);

// The definition, for one pass, on the host.
template <typename T>
void mamba2_step_reference(const Mamba2StepParams<T>& p);
template <typename T>
void mamba1_step_reference(const Mamba1StepParams<T>& p);
template <typename T>
void conv_step_reference(const ConvStepParams<T>& p);

// On the device in use; all pointers are of its memory. `next`: see Prefetch.
template <typename T>
void mamba2_step_cuda(const Mamba2StepParams<T>& p, const Prefetch& next, CudaStream stream);
template <typename T>
void mamba1_step_cuda(const Mamba1StepParams<T>& p, const Prefetch& next, CudaStream stream);
template <typename T>
void conv_step_cuda(const ConvStepParams<T>& p, const Prefetch& next, CudaStream stream);

}  // namespace mambify::kernels
