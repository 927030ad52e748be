// A block takes one split of one sequence's cache for the query heads of one key/value head, of all
// new tokens: it stores the keys and values that are new in the split, and reads each key and value
// once for up to 32 rows (a row is a query head of a token).
#include <algorithm>

#include "kernels/pass_attention/block.cuh"
#include "kernels/pass_attention/many.h"
#include "kernels/pass_attention/params.h"
#include "kernels/pass_attention/stream.h"

namespace mambify::kernels {
namespace attention {

template <typename T>
__device__ Slots slots_of(const PassAttentionParams<T>& p, const Block& block, Row row) {
  const int64_t slots = part_slots(p.splits);
  const int64_t number = (block.sequence.first + row.token) * p.heads + row.head;
  float* sums = p.parts + number * slots * (block.head_dim + 2);
  return {sums, reinterpret_cast<float2*>(sums + slots * block.head_dim), block.head_dim};
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
  store_new(p, block, kSplit, p.keys + offset, p.values + offset);
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

int64_t pass_attention_stream_bytes(int64_t tokens, int64_t heads, int64_t head_dim) {
  return tokens * heads * head_dim * static_cast<int64_t>(sizeof(float));
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
  require(p.max_tokens > 0 && (p.streams || p.max_tokens <= 64),
          "attention of a pass: 1 to 64 new tokens of a sequence");
  require(p.splits > 0, "attention of a pass: no splits");
  if (p.n_sequences == 0) return;
  if constexpr (sizeof(T) == 2) {
    if (p.streams) return attention::stream(p, stream);
    if (attention::takes_many(p)) return attention::attend_many(p, stream);
  }
  require(!p.streams, "attention of a pass: fp32 does not stream");
  if (p.head_dim == 128) return attention::launch_tiles<T, 128, false>(p, next, stream);
  if (p.head_dim == 64) return attention::launch_tiles<T, 64, false>(p, next, stream);
  if (p.head_dim > 64) return attention::launch_tiles<T, 128, true>(p, next, stream);
  attention::launch_tiles<T, 64, true>(p, next, stream);
}

template void pass_attention_cuda(const PassAttentionParams<float>&, const Prefetch&, CudaStream);
template void pass_attention_cuda(const PassAttentionParams<Bf16>&, const Prefetch&, CudaStream);

}  // namespace mambify::kernels
