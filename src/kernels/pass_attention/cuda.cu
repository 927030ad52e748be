// A block takes one split of one sequence's cache for the query heads of one key/value head, of all
// new tokens: it stores the keys and values that are new in the split, and reads each key and value
// once for up to 32 rows (a row is a query head of a token).
#include <algorithm>

#include "kernels/pass_attention/params.h"
#include "kernels/pass_attention/parts.cuh"
#include "kernels/pass_attention/split.cuh"

namespace mambify::kernels {
namespace attention {

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

__device__ Row row_of(const Block& block, int number) {
  return {block.first_token + number / block.group,
          block.kv_head * block.group + number % block.group};
}

// Heads of a new token: queries, then keys, then values.
template <typename T>
__device__ const T* head_of(const PassAttentionParams<T>& p, const Block& block, int token,
                            int64_t head) {
  const int64_t number = block.sequence.first + token;
  return p.qkv + (number * (p.heads + 2 * p.kv_heads) + head) * block.head_dim;
}

template <typename T>
__device__ Slots slots_of(const PassAttentionParams<T>& p, const Block& block, Row row) {
  const int64_t slots = part_slots(p.splits);
  const int64_t number = (block.sequence.first + row.token) * p.heads + row.head;
  float* sums = p.parts + number * slots * (block.head_dim + 2);
  return {sums, reinterpret_cast<float2*>(sums + slots * block.head_dim), block.head_dim};
}

template <typename T>
__device__ T* output_of(const PassAttentionParams<T>& p, const Block& block, Row row) {
  return p.y + ((block.sequence.first + row.token) * p.heads + row.head) * block.head_dim;
}

// Turns the pairs (i, i + head_dim / 2) of a head from `i` on, as many as 16 bytes hold.
template <typename T>
__device__ void turn(const PassAttentionParams<T>& p, const T* head, int position, int head_dim,
                     int i, T* to) {
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
  *reinterpret_cast<uint4*>(to + i) = pack<T>(first);
  *reinterpret_cast<uint4*>(to + half + i) = pack<T>(second);
}

// Keys and values of the new tokens that lie in the split.
template <typename T>
__device__ void store_new(const PassAttentionParams<T>& p, const Block& block, T* keys, T* values) {
  constexpr int kSize = Vector<T>::kSize;
  const int token_end = min(block.sequence.tokens, block.begin + kSplit - block.position);
  const int pairs = block.head_dim / 2 / kSize;  // vectors of a half of a head
  const int items = (token_end - block.first_token) * pairs;
  if (items <= 0) return;
  for (int item = threadIdx.x; item < items; item += kThreads) {
    const int token = block.first_token + item / pairs, i = item % pairs * kSize;
    const int position = block.position + token;
    const int64_t offset = static_cast<int64_t>(position - block.begin) * block.head_dim;
    turn(p, head_of(p, block, token, p.heads + block.kv_head), position, block.head_dim, i,
         keys + offset);
    const T* from = head_of(p, block, token, p.heads + p.kv_heads + block.kv_head);
    for (int part = i; part < block.head_dim; part += block.head_dim / 2) {
      *reinterpret_cast<uint4*>(values + offset + part) =
          *reinterpret_cast<const uint4*>(from + part);
    }
  }
  __syncthreads();
}

// Turned queries of rows from `first` on. Dimensions behind the last are zero.
template <typename T, int kWidth>
__device__ void load_queries(const PassAttentionParams<T>& p, const Block& block, int first,
                             int rows, T* queries) {
  constexpr int kSize = Vector<T>::kSize;
  const int pairs = block.head_dim / 2 / kSize;
  for (int item = threadIdx.x; item < rows * pairs; item += kThreads) {
    const int number = item / pairs;
    const Row row = row_of(block, first + number);
    turn(p, head_of(p, block, row.token, row.head), block.position + row.token, block.head_dim,
         item % pairs * kSize, queries + number * Rows<T, kWidth>::kStride);
  }
  const int missing = (kWidth - block.head_dim) / kSize;
  for (int item = threadIdx.x; item < rows * missing; item += kThreads) {
    T* row = queries + item / missing * Rows<T, kWidth>::kStride + block.head_dim;
    *reinterpret_cast<uint4*>(row + item % missing * kSize) = make_uint4(0, 0, 0, 0);
  }
}

// Puts together the parts of every new token of the sequence: those of the split's group by the
// last block of the group, then those of all groups by the last of these.
template <typename T>
__device__ void finish(const PassAttentionParams<T>& p, Block block) {
  const int parts = block.parts(), groups = static_cast<int>(group_slots(parts));
  const int group = block.begin / kSplit / kGroup;
  const int64_t all_groups = group_slots(p.splits);
  int32_t* counters = p.counters + (blockIdx.z * p.kv_heads + block.kv_head) * (1 + all_groups);
  if (!last_to_arrive(counters + 1 + group, min(kGroup, parts - group * kGroup))) return;

  block.first_token = 0;
  const int quads = block.head_dim / 4;
  const int items = block.sequence.tokens * block.group * quads;
  for (int item = threadIdx.x; item < items; item += kThreads) {
    const Row row = row_of(block, item / quads);
    const int quad = item % quads;
    const int count = (block.position + row.token) / kSplit + 1 - group * kGroup;
    if (count <= 0) continue;
    const Slots slots = slots_of(p, block, row);
    const Part part = put_together(slots, group * kGroup, min(count, kGroup), quad);
    if (groups == 1) {
      write_output(output_of(p, block, row) + 4 * quad, part);
    } else {
      slots.write(static_cast<int>(p.splits) + group, quad, part);
    }
  }
  if (groups == 1 || !last_to_arrive(counters, groups)) return;

  for (int item = threadIdx.x; item < items; item += kThreads) {
    const Row row = row_of(block, item / quads);
    const int quad = item % quads;
    const int count = static_cast<int>(group_slots((block.position + row.token) / kSplit + 1));
    write_output(output_of(p, block, row) + 4 * quad,
                 put_together(slots_of(p, block, row), static_cast<int>(p.splits), count, quad));
  }
}

// All of it at once: the compiler would read some only after the first of it has arrived.
__device__ PassSequence read_sequence(const PassSequence* from) {
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

template <typename T, int kWidth, int kTiles>
struct Shared {
  static constexpr int kQueries = kTiles * Rows<T, kWidth>::kBytes;
  static constexpr int kWeights = kTiles * Rows<T, kSplit>::kBytes;
  // Scores are read before sums are written.
  static constexpr int kSums =
      std::max(kTiles * kTileRows * kScoreStride * 4, Sums<kWidth, kTiles>::kBytes);
  static constexpr int kBytes = kQueries + kWeights + kSums;
};

// kWidth: at least head_dim, and equal to it unless kPadded. scale: of scores in base 2.
template <typename T, int kWidth, bool kPadded, int kTiles>
__global__ void __launch_bounds__(kThreads, 2)
    attend(const __grid_constant__ PassAttentionParams<T> p, const Prefetch next, float scale) {
  using Layout = Shared<T, kWidth, kTiles>;
  extern __shared__ uint4 shared[];
  __shared__ float2 totals[kTiles * kTileRows];
  T* const queries = reinterpret_cast<T*>(shared);
  T* const weights = reinterpret_cast<T*>(reinterpret_cast<char*>(shared) + Layout::kQueries);
  float* const sums = reinterpret_cast<float*>(reinterpret_cast<char*>(shared) + Layout::kQueries +
                                               Layout::kWeights);
  start_successor();
  if (blockIdx.z >= p.n_sequences) {
    const int blocks = gridDim.x * gridDim.y;
    prefetch_to_l2(next,
                   (blockIdx.z - static_cast<int>(p.n_sequences)) * blocks +
                       blockIdx.y * gridDim.x + blockIdx.x,
                   (gridDim.z - static_cast<int>(p.n_sequences)) * blocks);
    return;
  }
  wait_for_predecessor();

  Block block{.sequence = read_sequence(p.sequences + blockIdx.z)};
  block.position = block.sequence.base + block.sequence.pending;
  block.begin = static_cast<int>(blockIdx.x) * kSplit;
  if (block.sequence.tokens == 0 || block.begin >= block.length()) return;
  block.first_token = max(0, block.begin - block.position);
  block.kv_head = blockIdx.y;
  block.group = static_cast<int>(p.heads) / static_cast<int>(p.kv_heads);
  block.head_dim = kPadded ? static_cast<int>(p.head_dim) : kWidth;

  const int64_t offset =
      ((block.sequence.row * p.kv_heads + block.kv_head) * p.capacity + block.begin) *
      block.head_dim;
  store_new(p, block, p.keys + offset, p.values + offset);
  const SplitCache<T> cache{p.keys + offset, p.values + offset,
                            min(kSplit, block.length() - block.begin), block.head_dim};

  const int rows_of_all = (block.sequence.tokens - block.first_token) * block.group;
  const int quads = block.head_dim / 4;
  const bool alone = block.parts() == 1;
#pragma unroll 1
  for (int first = 0; first < rows_of_all; first += kTiles * kTileRows) {
    const int rows = min(kTiles * kTileRows, rows_of_all - first);
    SplitTiles<T, kWidth, kTiles> tiles;
    tiles.load_keys(cache);
    load_queries<T, kWidth>(p, block, first, rows, queries);
    __syncthreads();
    tiles.score(cache, queries, rows, sums);
    __syncthreads();
    for (int number = threadIdx.x / 32; number < rows; number += kWarps) {
      const int position = block.position + row_of(block, first + number).token;
      const float2 total =
          softmax(sums + number * kScoreStride, min(kSplit, position - block.begin + 1), scale,
                  weights + number * Rows<T, kSplit>::kStride);
      if (threadIdx.x % 32 == 0) totals[number] = total;
    }
    __syncthreads();
    tiles.weigh(cache, weights, rows, sums);
    __syncthreads();
    for (int item = threadIdx.x; item < rows * quads; item += kThreads) {
      const int number = item / quads, quad = item % quads;
      Part part{totals[number].x, totals[number].y};
      for (int group = 0; group < Sums<kWidth, kTiles>::kGroups; ++group) {
        scale_add(part.sums, 1.0f, *Sums<kWidth, kTiles>::at(sums, group, number, quad));
      }
      const Row row = row_of(block, first + number);
      if (alone) {
        write_output(output_of(p, block, row) + 4 * quad, part);
      } else {
        slots_of(p, block, row).write(blockIdx.x, quad, part);
      }
    }
    __syncthreads();
  }
  if (!alone) finish(p, block);
}

// Blocks that bring the next weights on their way: enough for the reads of a memory's whole speed.
constexpr int64_t kPrefetchBlocks = 128;

template <typename T, int kWidth, bool kPadded, int kTiles>
void launch_attention(const PassAttentionParams<T>& p, const Prefetch& next, CudaStream stream) {
  constexpr int kBytes = Shared<T, kWidth, kTiles>::kBytes;
  const auto kernel = attend<T, kWidth, kPadded, kTiles>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  const int64_t blocks = p.splits * p.kv_heads;
  const int64_t more = next.bytes > 0 ? (kPrefetchBlocks + blocks - 1) / blocks : 0;
  require(p.kv_heads <= 65535 && p.n_sequences + more <= 65535,
          "attention of a pass: at most 65,535 key/value heads, and about as many sequences");
  constexpr float kLog2E = 1.44269504088896341f;
  const dim3 grid(static_cast<unsigned>(p.splits), static_cast<unsigned>(p.kv_heads),
                  static_cast<unsigned>(p.n_sequences + more));
  launch(kernel, grid, dim3(kThreads), kBytes, stream, p, next, p.scale * kLog2E);
}

template <typename T, int kWidth, bool kPadded>
void launch_tiles(const PassAttentionParams<T>& p, const Prefetch& next, CudaStream stream) {
  if constexpr (sizeof(T) == 2) {
    if (p.max_tokens * (p.heads / p.kv_heads) > kTileRows) {
      return launch_attention<T, kWidth, kPadded, 2>(p, next, stream);
    }
  }
  launch_attention<T, kWidth, kPadded, 1>(p, next, stream);
}

}  // namespace attention

int64_t pass_attention_scratch_bytes(int64_t tokens, int64_t heads, int64_t head_dim,
                                     int64_t splits) {
  return tokens * heads * attention::part_slots(splits) * (head_dim + 2) *
         static_cast<int64_t>(sizeof(float));
}

int64_t pass_attention_counters(int64_t n_sequences, int64_t kv_heads, int64_t splits) {
  return n_sequences * kv_heads * (1 + attention::group_slots(splits));
}

template <typename T>
void pass_attention_cuda(const PassAttentionParams<T>& p, const Prefetch& next, CudaStream stream) {
  require(p.head_dim > 0 && p.head_dim <= 128 && p.head_dim % 16 == 0,
          "attention of a pass: the width of a head must be a multiple of 16, 128 at most");
  require(p.kv_heads > 0 && p.heads > 0 && p.heads % p.kv_heads == 0,
          "attention of a pass: query heads must be a multiple of key/value heads");
  require(p.max_tokens > 0 && p.max_tokens <= 64,
          "attention of a pass: 1 to 64 new tokens of a sequence");
  require(p.splits > 0, "attention of a pass: no splits");
  if (p.n_sequences == 0) return;
  if (p.head_dim == 128) return attention::launch_tiles<T, 128, false>(p, next, stream);
  if (p.head_dim == 64) return attention::launch_tiles<T, 64, false>(p, next, stream);
  if (p.head_dim > 64) return attention::launch_tiles<T, 128, true>(p, next, stream);
  attention::launch_tiles<T, 64, true>(p, next, stream);
}

template void pass_attention_cuda(const PassAttentionParams<float>&, const Prefetch&, CudaStream);
template void pass_attention_cuda(const PassAttentionParams<Bf16>&, const Prefetch&, CudaStream);

}  // namespace mambify::kernels
