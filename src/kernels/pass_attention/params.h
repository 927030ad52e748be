// Contract of the attention of a decoding pass: rotary embedding, storing of keys and values, and
// softmax attention of each new token over all that its sequence has read.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cuda/pass.h"
#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

// The cache is split at fixed positions, multiples of this: what a token computes of each part does
// not depend on the pass, nor how the parts are put together.
inline constexpr int64_t kAttentionSplit = 256;
// So many consecutive parts are put together first, and then what they gave: the reading of a long
// sequence's parts must not wait for one block.
inline constexpr int64_t kAttentionGroup = 16;

// T: float or Bf16, of memory; scores and sums are fp32, and y is rounded to T. Turned queries and
// keys are rounded to T. Recurrent fields of PassSequence say where the new tokens stand: token i
// of a sequence is at position base + pending + i.
template <typename T>
struct PassAttentionParams {
  const PassSequence* sequences = nullptr;  // [n_sequences], in device memory
  int64_t n_sequences = 0;
  int64_t max_tokens = 0;  // most new tokens of one sequence, 1 to 64 unless it streams
  int64_t splits = 0;      // at least the parts that the longest sequence has after the pass

  int64_t heads = 0, kv_heads = 0;  // query head h reads key/value head h / (heads / kv_heads)
  int64_t head_dim = 0;             // a multiple of 16, at most 128
  float scale = 0;

  const T* qkv = nullptr;  // [tokens of the pass, (heads + 2 kv_heads) * head_dim], before rotation
  const float* cos =
      nullptr;  // [positions, head_dim / 2], as is sin: pair (i, i + head_dim / 2) turns
  const float* sin = nullptr;

  T* keys = nullptr;  // [rows, kv_heads, capacity, head_dim], turned; as are values, not turned
  T* values = nullptr;
  int64_t capacity = 0;

  // For many tokens, in bf16 alone: a block reads the cache for its rows from the first position to
  // the last, instead of a part of it for all rows. The bits are the same.
  bool streams = false;

  // Scratch: what a part of the cache gives each token and head, (most, sum, head_dim sums) in
  // fp32: pass_attention_scratch_bytes(), or where it streams pass_attention_stream_bytes(); and
  // counters, zeros before and after: pass_attention_counters(), none where it streams.
  float* parts = nullptr;
  int32_t* counters = nullptr;

  T* y = nullptr;  // [tokens of the pass, heads * head_dim]
};

// tokens: of the pass.
int64_t pass_attention_scratch_bytes(int64_t tokens, int64_t heads, int64_t head_dim,
                                     int64_t splits);
int64_t pass_attention_stream_bytes(int64_t tokens, int64_t heads, int64_t head_dim);
// How many of them, of 4 bytes each.
int64_t pass_attention_counters(int64_t n_sequences, int64_t kv_heads, int64_t splits);

// The definition, on the host, accumulated in double.
template <typename T>
void pass_attention_reference(const PassAttentionParams<T>& p);

// On the device in use. `next`: see Prefetch.
template <typename T>
void pass_attention_cuda(const PassAttentionParams<T>& p, const Prefetch& next, CudaStream stream);

}  // namespace mambify::kernels
