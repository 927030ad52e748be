// A warp holds 16 rows (a row is a query head of a token), a block 128 of one key/value head; keys
// and values go by, tiles of 64 positions through shared memory. Scores stay in registers: products
// of queries and keys put them where the products with values want them. Every sum is that of
// split.cuh, and parts of the cache are put together as in parts.cuh.
#include <algorithm>

#include "kernels/pass_attention/block.cuh"
#include "kernels/pass_attention/registers.cuh"
#include "kernels/pass_attention/stream.h"

namespace mambify::kernels::attention {
namespace {

constexpr int kTile = 64;  // positions
constexpr int kTiles = kSplit / kTile;
constexpr int kBlockRows = kWarps * kTileRows;

template <int kWidth>
struct Stream {
  static constexpr int kUnits = kWidth / 8;  // vectors of 16 bytes of a position
  static constexpr int kTileVectors = kTile * kUnits;
  static constexpr int kLoads = kTileVectors / kThreads;
  static constexpr int kStages = 6;
  static constexpr int kColumns = kWidth / 8;  // products' columns of 8 dimensions
  // Positions whose weighted values are one chain of products, as split.cuh divides them.
  static constexpr int kGroupKeys = Sums<kWidth, 1>::kGroupKeys;
  static constexpr int kStageBytes = kStages * kTileVectors * 16;
  // What a thread has of the parts of a group that are put together.
  static constexpr int kGroupBytes = kColumns * kThreads * 16;
  static constexpr int kBytes = kStageBytes + kGroupBytes;
  static_assert(kBlockRows * Rows<Bf16, kWidth>::kBytes / kTileRows <= kBytes);
};

// What a thread knows of its rows: row g of its warp's and row g + 8.
struct RowState {
  int position;
  float most, total;          // of the parts of this group
  float all_most, all_total;  // of the groups before
};

// scale: of scores in base 2.
template <int kWidth>
__global__ void __launch_bounds__(kThreads, 1)
    attend_streaming(const __grid_constant__ PassAttentionParams<Bf16> p, float scale) {
  using Sizes = Stream<kWidth>;
  constexpr int kStages = Sizes::kStages, kUnits = Sizes::kUnits, kColumns = Sizes::kColumns;
  extern __shared__ uint4 shared[];
  start_successor();
  wait_for_predecessor();
  Block block{.sequence = read_sequence(p.sequences + blockIdx.z)};
  block.position = block.sequence.base + block.sequence.pending;
  block.begin = 0;
  block.first_token = 0;
  block.kv_head = blockIdx.y;
  block.group = static_cast<int>(p.heads) / static_cast<int>(p.kv_heads);
  block.head_dim = static_cast<int>(p.head_dim);
  const int all_rows = block.sequence.tokens * block.group;
  // The blocks with the most to read begin first.
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kBlockRows;
  if (first >= all_rows) return;
  const int rows = min(kBlockRows, all_rows - first);
  const int last_position = block.position + row_of(block, first + rows - 1).token;
  const int splits = last_position / kSplit + 1, tiles = splits * 2 * kTiles;

  const int64_t offset =
      (block.sequence.row * p.kv_heads + block.kv_head) * p.capacity * block.head_dim;
  // Tiles of a split's keys, then those of its values.
  const auto load = [&](int tile) {
    const bool is_value = tile / kTiles % 2 == 1;
    const int begin = tile / (2 * kTiles) * kSplit + tile % kTiles * kTile;
    if (tile < tiles && begin <= last_position) {
      const Bf16* from = (is_value ? p.values : p.keys) + offset;
      uint4* to = shared + tile % kStages * Sizes::kTileVectors;
#pragma unroll
      for (int i = 0; i < Sizes::kLoads; ++i) {
        const int vector = threadIdx.x + i * kThreads, key = vector / kUnits,
                  unit = vector % kUnits;
        const bool exists = begin + key < block.length() && unit * 8 < block.head_dim;
        copy_async(
            to + key * kUnits + (unit ^ swizzle(key)),
            exists ? from + static_cast<int64_t>(begin + key) * block.head_dim + unit * 8 : from,
            exists ? 16 : 0);
      }
    }
    end_copy_group();
  };

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
  uint4 queries[kWidth / 32][2];
  {
    Bf16* turned = reinterpret_cast<Bf16*>(shared);
    load_queries<Bf16, kWidth>(p, block, first, rows, turned);
    __syncthreads();
    const Bf16* row = turned + (warp * kTileRows + g) * Rows<Bf16, kWidth>::kStride + 8 * c;
#pragma unroll
    for (int j = 0; j < kWidth / 32; ++j) {
      queries[j][0] = *reinterpret_cast<const uint4*>(row + 32 * j);
      queries[j][1] =
          *reinterpret_cast<const uint4*>(row + 8 * Rows<Bf16, kWidth>::kStride + 32 * j);
    }
    __syncthreads();
  }
  RowState state[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = min(warp * kTileRows + g + 8 * half, rows - 1);
    state[half] = {block.position + row_of(block, first + row).token, 0, 0, 0, 0};
  }
  const int warp_rows = min((warp + 1) * kTileRows, rows);  // up to this warp's last
  const int warp_last = block.position + row_of(block, first + warp_rows - 1).token;
  const bool is_warp_empty = warp * kTileRows >= rows;
  float4* group = reinterpret_cast<float4*>(shared + Sizes::kStageBytes / 16) + threadIdx.x;
  // Of all groups but the last: [row of the pass, head_dim], two dimensions of a column a thread.
  const auto all_of = [&](int half, int column) {
    const Row row = row_of(block, first + min(warp * kTileRows + g + 8 * half, rows - 1));
    const int64_t number = (block.sequence.first + row.token) * p.heads + row.head;
    return reinterpret_cast<float2*>(p.parts + number * block.head_dim + 8 * column + 2 * c);
  };

  for (int tile = 0; tile < kStages - 1; ++tile) load(tile);
  int tile = 0;
  const auto next_tile = [&] {
    await_copies<kStages - 2>();
    __syncthreads();
    load(tile + kStages - 1);
    return shared + tile++ % kStages * Sizes::kTileVectors;
  };

#pragma unroll 1
  for (int split = 0; split < splits; ++split) {
    const int begin = split * kSplit;
    Scores<2> scores;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      // Lane 4 g + c reads of 32 dimensions the 8 from 8 c on, of the position that is column g.
      const uint4* keys = next_tile() + (g / 2 * 8 + g % 2) * kUnits + (c ^ (g / 2));
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) scores[t * (kTile / 8) + n][i] = 0;
      }
      if (is_warp_empty || begin + t * kTile > warp_last) continue;
#pragma unroll
      for (int j = 0; j < kWidth / 32; ++j) {
        const uint4 low = queries[j][0], high = queries[j][1];
        const int unit = (j & ~1) * 4 + ((j ^ g) & 1) * 4;
        uint4 key[kTile / 8];
#pragma unroll
        for (int n = 0; n < kTile / 8; ++n) {
          key[n] = keys[(n / 4 * 32 + n % 4 * 2) * kUnits + unit];
        }
#pragma unroll
        for (int n = 0; n < kTile / 8; ++n) {
          multiply_tiles(scores[t * (kTile / 8) + n], low.x, high.x, low.y, high.y, key[n].x,
                         key[n].y);
        }
#pragma unroll
        for (int n = 0; n < kTile / 8; ++n) {
          multiply_tiles(scores[t * (kTile / 8) + n], low.z, high.z, low.w, high.w, key[n].z,
                         key[n].w);
        }
      }
    }

    float2 part[2];
    uint32_t weights[kSplit / 8][2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      part[half] = softmax<2>(scores, half, min(kSplit, state[half].position - begin + 1), scale);
#pragma unroll
      for (int n = 0; n < kSplit / 8; ++n) {
        weights[n][half] = pack_pair(scores[n][2 * half], scores[n][2 * half + 1]);
      }
    }

    float sums[kColumns][4] = {};
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const uint4* values = next_tile();
      if (is_warp_empty || begin + t * kTile > warp_last) continue;
      // A matrix is 8 positions of a column of dimensions; the four of a load serve two products.
      const int key = lane % 8 / 2 * 8 + lane / 8 * 2 + lane % 2;
      const uint4* from = values + key * kUnits;
      constexpr int kParts = Sizes::kGroupKeys / 32;
#pragma unroll
      for (int begun = 0; begun < kTile / 32; begun += kParts) {
#pragma unroll
        for (int columns = 0; columns < kColumns; columns += 4) {
          float sum[4][4] = {};
#pragma unroll
          for (int b = begun; b < begun + kParts; ++b) {
            const uint32_t(*w)[2] = weights + (t * kTile / 32 + b) * 4;
            uint32_t v[4][4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              load_transposed(v[i], from + b * 32 * kUnits + ((columns + i) ^ swizzle(key)));
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              multiply_tiles(sum[i], w[0][0], w[0][1], w[1][0], w[1][1], v[i][0], v[i][1]);
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              multiply_tiles(sum[i], w[2][0], w[2][1], w[3][0], w[3][1], v[i][2], v[i][3]);
            }
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
              sums[columns + i][k] = multiply_add(1.0f, sum[i][k], sums[columns + i][k]);
            }
          }
        }
      }
    }

    const bool is_first = split % kGroup == 0;
    Weights joined[2];
    bool is_inside[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      RowState& row = state[half];
      is_inside[half] = begin <= row.position;
      if (!is_inside[half]) continue;
      joined[half] = weights_of(row.most, part[half].x);
      row.total = is_first ? part[half].y : join(joined[half], row.total, part[half].y);
      row.most = is_first ? part[half].x : joined[half].most;
    }
    const bool ends_group = split % kGroup == kGroup - 1 || split + 1 == splits;
    const bool is_first_group = split / kGroup == 0, is_end = split + 1 == splits;
    Weights with_all[2];
    if (ends_group && !is_first_group) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        RowState& row = state[half];
        if (row.position / kSplit / kGroup < split / kGroup) continue;  // none of the group
        with_all[half] = weights_of(row.all_most, row.most);
        row.total = join(with_all[half], row.all_total, row.total);
        row.most = with_all[half].most;
      }
    }
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
      float4 v = is_first ? make_float4(0, 0, 0, 0) : group[column * kThreads];
      float pair[2][2] = {{v.x, v.y}, {v.z, v.w}};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if (!is_inside[half]) continue;
          const float sum = sums[column][2 * half + e];
          pair[half][e] = is_first ? sum : join(joined[half], pair[half][e], sum);
        }
      }
      if (!ends_group) {
        group[column * kThreads] = make_float4(pair[0][0], pair[0][1], pair[1][0], pair[1][1]);
        continue;
      }
      if (8 * column >= block.head_dim) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = warp * kTileRows + g + 8 * half;
        if (row >= rows) continue;
        float2 all = make_float2(pair[half][0], pair[half][1]);
        if (!is_first_group) {
          const float2 before = __ldcg(all_of(half, column));
          const bool has_group = state[half].position / kSplit / kGroup >= split / kGroup;
          all.x = has_group ? join(with_all[half], before.x, all.x) : before.x;
          all.y = has_group ? join(with_all[half], before.y, all.y) : before.y;
        }
        if (!is_end) {
          __stcg(all_of(half, column), all);
          continue;
        }
        const float total = state[half].total;
        *reinterpret_cast<uint32_t*>(output_of(p, block, row_of(block, first + row)) + 8 * column +
                                     2 * c) =
            pack_pair(__fdiv_rn(all.x, total), __fdiv_rn(all.y, total));
      }
    }
    if (ends_group) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        state[half].all_most = state[half].most;
        state[half].all_total = state[half].total;
      }
    }
  }
}

constexpr int kStored = 32;  // tokens whose keys and values a block stores

__global__ void __launch_bounds__(kThreads)
    store_keys_and_values(const __grid_constant__ PassAttentionParams<Bf16> p) {
  start_successor();
  wait_for_predecessor();
  Block block{.sequence = read_sequence(p.sequences + blockIdx.z)};
  block.position = block.sequence.base + block.sequence.pending;
  block.first_token = static_cast<int>(blockIdx.x) * kStored;
  block.begin = block.position + block.first_token;
  block.kv_head = blockIdx.y;
  block.head_dim = static_cast<int>(p.head_dim);
  const int64_t offset =
      ((block.sequence.row * p.kv_heads + block.kv_head) * p.capacity + block.begin) *
      block.head_dim;
  store_new(p, block, kStored, p.keys + offset, p.values + offset);
}

template <int kWidth>
void launch_stream(const PassAttentionParams<Bf16>& p, CudaStream stream) {
  const auto blocks_of = [](int64_t count, int64_t each) {
    return static_cast<unsigned>((count + each - 1) / each);
  };
  const auto heads = static_cast<unsigned>(p.kv_heads), n = static_cast<unsigned>(p.n_sequences);
  require(p.kv_heads <= 65535 && p.n_sequences <= 65535,
          "attention of a pass: at most 65,535 key/value heads and sequences");
  launch(store_keys_and_values, dim3(blocks_of(p.max_tokens, kStored), heads, n), dim3(kThreads),
         /*shared=*/0, stream, p);
  constexpr int kBytes = Stream<kWidth>::kBytes;
  const auto kernel = attend_streaming<kWidth>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  constexpr float kLog2E = 1.44269504088896341f;
  launch(kernel, dim3(blocks_of(p.max_tokens * (p.heads / p.kv_heads), kBlockRows), heads, n),
         dim3(kThreads), kBytes, stream, p, p.scale * kLog2E);
}

}  // namespace

void stream(const PassAttentionParams<Bf16>& p, CudaStream stream) {
  if (p.head_dim > 64) return launch_stream<128>(p, stream);
  launch_stream<64>(p, stream);
}

}  // namespace mambify::kernels::attention
