// What the kernels of attention share: new tokens of a sequence, their heads, and the rotation.
#pragma once

#include "kernels/pass_attention/params.h"
#include "kernels/pass_attention/parts.cuh"
#include "kernels/pass_attention/split.cuh"

namespace mambify::kernels::attention {

// A sequence as the block of one of its splits sees it.
struct Block {
  PassSequence sequence;
  int position;     // of its first new token
  int begin;        // of the split, in positions
  int first_token;  // the first new token that reads the split
  int kv_head;
  int group;  // query heads of a key/value head
  int head_dim;

  __device__ int length() const { return position + sequence.tokens; }
  __device__ int parts() const { return (length() + kSplit - 1) / kSplit; }
};

// A query head of a new token.
struct Row {
  int token, head;
};

__device__ inline Row row_of(const Block& block, int number) {
  return {block.first_token + number / block.group,
          block.kv_head * block.group + number % block.group};
}

// Heads of a new token: queries, then keys, then values.
template <typename T>
__device__ inline const T* head_of(const PassAttentionParams<T>& p, const Block& block, int token,
                                   int64_t head) {
  const int64_t number = block.sequence.first + token;
  return p.qkv + (number * (p.heads + 2 * p.kv_heads) + head) * block.head_dim;
}

template <typename T>
__device__ inline T* output_of(const PassAttentionParams<T>& p, const Block& block, Row row) {
  return p.y + ((block.sequence.first + row.token) * p.heads + row.head) * block.head_dim;
}

// Vectors of a head, from i and from i + head_dim / 2 on.
struct Halves {
  uint4 first, second;
};

// The pairs (i, i + head_dim / 2) of a head from `i` on, as many as 16 bytes hold, turned.
template <typename T>
__device__ inline Halves turned(const PassAttentionParams<T>& p, const T* head, int position,
                                int head_dim, int i) {
  constexpr int kSize = Vector<T>::kSize;
  const int half = head_dim / 2;
  Vector<T> first = unpack<T>(*reinterpret_cast<const uint4*>(head + i));
  Vector<T> second = unpack<T>(*reinterpret_cast<const uint4*>(head + half + i));
  float cos[kSize], sin[kSize];
#pragma unroll
  for (int k = 0; k < kSize; k += 4) {
    const int64_t angle = static_cast<int64_t>(position) * half + i + k;
    *reinterpret_cast<float4*>(cos + k) = *reinterpret_cast<const float4*>(p.cos + angle);
    *reinterpret_cast<float4*>(sin + k) = *reinterpret_cast<const float4*>(p.sin + angle);
  }
#pragma unroll
  for (int k = 0; k < kSize; ++k) {
    const float a = first.values[k], b = second.values[k];
    first.values[k] = multiply_add(a, cos[k], -__fmul_rn(b, sin[k]));
    second.values[k] = multiply_add(b, cos[k], __fmul_rn(a, sin[k]));
  }
  return {pack<T>(first), pack<T>(second)};
}

template <typename T>
__device__ inline void store_halves(const Halves& halves, int head_dim, int i, T* to) {
  *reinterpret_cast<uint4*>(to + i) = halves.first;
  *reinterpret_cast<uint4*>(to + head_dim / 2 + i) = halves.second;
}

// Keys and values of the block's new tokens up to `token_end`, as thread `thread` of `threads`.
// keys, values: of the position block.begin.
template <typename T>
__device__ inline void store_tokens(const PassAttentionParams<T>& p, const Block& block,
                                    int token_end, T* keys, T* values, int thread, int threads) {
  constexpr int kSize = Vector<T>::kSize;
  const int half = block.head_dim / 2, pairs = half / kSize;  // vectors of a half of a head
  const int items = (token_end - block.first_token) * pairs;
  for (int item = thread; item < items; item += threads) {
    const int token = block.first_token + item / pairs, i = item % pairs * kSize;
    const int position = block.position + token;
    const int64_t offset = static_cast<int64_t>(position - block.begin) * block.head_dim;
    store_halves(
        turned(p, head_of(p, block, token, p.heads + block.kv_head), position, block.head_dim, i),
        block.head_dim, i, keys + offset);
    const T* from = head_of(p, block, token, p.heads + p.kv_heads + block.kv_head);
    store_halves({*reinterpret_cast<const uint4*>(from + i),
                  *reinterpret_cast<const uint4*>(from + half + i)},
                 block.head_dim, i, values + offset);
  }
}

// Those that lie in the split, of `positions`, by all threads of a block.
template <typename T>
__device__ inline void store_new(const PassAttentionParams<T>& p, const Block& block, int positions,
                                 T* keys, T* values) {
  const int token_end = min(block.sequence.tokens, block.begin + positions - block.position);
  if (token_end <= block.first_token) return;
  store_tokens(p, block, token_end, keys, values, threadIdx.x, kThreads);
  __syncthreads();
}

// Turned queries of rows from `first` on. Dimensions behind the last are zero.
template <typename T, int kWidth>
__device__ inline void load_queries(const PassAttentionParams<T>& p, const Block& block, int first,
                                    int rows, T* queries) {
  constexpr int kSize = Vector<T>::kSize;
  const int pairs = block.head_dim / 2 / kSize;
  for (int item = threadIdx.x; item < rows * pairs; item += kThreads) {
    const int number = item / pairs;
    const Row row = row_of(block, first + number);
    const int i = item % pairs * kSize;
    store_halves(turned(p, head_of(p, block, row.token, row.head), block.position + row.token,
                        block.head_dim, i),
                 block.head_dim, i, queries + number * Rows<T, kWidth>::kStride);
  }
  const int missing = (kWidth - block.head_dim) / kSize;
  for (int item = threadIdx.x; item < rows * missing; item += kThreads) {
    T* row = queries + item / missing * Rows<T, kWidth>::kStride + block.head_dim;
    *reinterpret_cast<uint4*>(row + item % missing * kSize) = make_uint4(0, 0, 0, 0);
  }
}

// All of it at once: the compiler would read some only after the first of it has arrived.
__device__ inline PassSequence read_sequence(const PassSequence* from) {
  static_assert(sizeof(PassSequence) == 24);
  PassSequence s;
  asm volatile(
      "ld.global.s32 %0, [%6];\n"
      "ld.global.s32 %1, [%6+4];\n"
      "ld.global.s32 %2, [%6+8];\n"
      "ld.global.s32 %3, [%6+12];\n"
      "ld.global.s32 %4, [%6+16];\n"
      "ld.global.s32 %5, [%6+20];\n"
      : "=&r"(s.row), "=&r"(s.first), "=&r"(s.tokens), "=&r"(s.base), "=&r"(s.pending),
        "=&r"(s.commit)
      : "l"(from)
      : "memory");
  return s;
}

}  // namespace mambify::kernels::attention
