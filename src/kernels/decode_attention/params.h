// Contract of decode attention: one new token for each of several sequences, over their caches.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"

namespace mambify::kernels {

// y = softmax(scale q . keys) values over the positions a sequence has seen, its own included;
// query head h reads key/value head h / (heads / groups). Elements of a position are contiguous,
// and positions follow one another. T: float or Bf16; what lies between q and y is float.
template <typename T>
struct DecodeAttentionParams {
  int64_t sequences = 0;
  int64_t heads = 0;
  int64_t groups = 0;  // key/value heads; divides heads
  int64_t width = 0;
  float scale = 0;

  const int64_t* rows = nullptr;     // [sequences], each one's row in the cache
  const int64_t* lengths = nullptr;  // [sequences], positions to read, at least 1

  const T* q = nullptr;  // [sequences, heads, width], contiguous
  const T* keys = nullptr;
  const T* values = nullptr;
  int64_t row_stride = 0;    // elements from one row of the cache to the next
  int64_t group_stride = 0;  // and from one key/value head to the next
  T* y = nullptr;            // [sequences, heads, width], contiguous
};

// The definition, accumulated in double.
template <typename T>
void decode_attention_reference(const DecodeAttentionParams<T>& p);

// Fast, parallel over sequences and key/value heads. The cache is read once, in blocks at fixed
// positions, so that the bits of a sequence depend neither on its neighbours nor on the threads.
void decode_attention_cpu(const DecodeAttentionParams<float>& p);
void decode_attention_cpu(const DecodeAttentionParams<Bf16>& p);

}  // namespace mambify::kernels
