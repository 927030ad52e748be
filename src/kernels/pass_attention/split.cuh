// What the block of one split of the cache computes, for up to kTiles * 16 query rows: scores of
// its keys, softmax, weighted sums of its values. Every row is computed in an order of its own,
// whatever the other rows are; rows beyond the last are computed from whatever is there and never
// read.
#pragma once

#include <cfloat>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/pass_attention/params.h"

namespace mambify::kernels::attention {

inline constexpr int kThreads = 256;
inline constexpr int kWarps = kThreads / 32;
inline constexpr int kSplit = static_cast<int>(kAttentionSplit);
inline constexpr int kWarpKeys = kSplit / kWarps;  // of which one warp computes the scores
inline constexpr int kTileRows = 16;

// A key/value head of a sequence from the first position of a split.
template <typename T>
struct SplitCache {
  const T* keys;  // [positions, head_dim], as are values
  const T* values;
  int positions;  // that are filled, 1 to kSplit; what lies behind them is not read
  int head_dim;
};

// Rows in shared memory. Fragments of Bf16 are read 16 bytes a lane, 8 rows at once: rows that are
// an odd multiple of 64 bytes apart keep every quarter of a warp free of bank conflicts.
template <typename T, int kWidth>
struct Rows {
  static constexpr int kStride = kWidth + (sizeof(T) == 2 ? 32 : 0);
  static constexpr int kBytes = kTileRows * kStride * static_cast<int>(sizeof(T));  // of a tile
};

// Scores: [rows, kSplit] in fp32.
inline constexpr int kScoreStride = kSplit + 8;

// Weighted sums of values before they are put together: [groups of keys, rows, kWidth] in fp32. A
// warp takes 64 dimensions of a group of keys.
template <int kWidth, int kTiles>
struct Sums {
  static constexpr int kSlices = kWidth / 64;
  static constexpr int kGroups = kWarps / kSlices;
  static constexpr int kGroupKeys = kSplit / kGroups;
  static constexpr int kStride = kWidth + 8;
  static constexpr int kBytes = kGroups * kTiles * kTileRows * kStride * 4;

  // Where four dimensions, from 4 * quad on, are. The exchange of neighbours keeps lanes that write
  // 16 dimensions each free of bank conflicts.
  static __device__ float4* at(float* sums, int group, int row, int quad) {
    const int place = quad ^ (quad >> 3 & 1);
    return reinterpret_cast<float4*>(sums + (group * kTiles * kTileRows + row) * kStride) + place;
  }
};

// Coherent, unlike vector.cuh's load_streamed: the block has itself stored some of what it reads.
__device__ inline uint4 load_or_zero(const void* address, bool wanted) {
  uint4 v = make_uint4(0, 0, 0, 0);
  asm volatile(
      "{\n"
      ".reg .pred wanted;\n"
      "setp.ne.s32 wanted, %5, 0;\n"
      "@wanted ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
      "}\n"
      : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
      : "l"(address), "r"(static_cast<int>(wanted))
      : "memory");
  return v;
}

// c += a b, a [16, 16] and b [16, 8] of bf16, c of fp32.
__device__ inline void multiply_tiles(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                      uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

template <typename T, int kWidth, int kTiles>
class SplitTiles;

// On tensor cores. Lane 4 n + c holds row n of what it loads, and of every 32 elements that are
// summed over the 8 from 8 c on: 16 bytes, which are its part of two products of 16. That permutes
// the order of the sum, of both factors alike.
template <int kWidth, int kTiles>
class SplitTiles<Bf16, kWidth, kTiles> {
  using Out = Sums<kWidth, kTiles>;

 public:
  __device__ SplitTiles() : n_(threadIdx.x % 32 / 4), c_(threadIdx.x % 4) {}

  // Keys are on their way when this returns.
  __device__ void load_keys(const SplitCache<Bf16>& cache) {
    const int key = warp() * kWarpKeys + n_, dim = 8 * c_;
    const Bf16* from = cache.keys + key * cache.head_dim + dim;
#pragma unroll
    for (int j = 0; j < kWidth / 32; ++j) {
#pragma unroll
      for (int k = 0; k < kWarpKeys / 8; ++k) {
        keys_[j][k] = load_or_zero(from + 8 * k * cache.head_dim + 32 * j,
                                   key + 8 * k < cache.positions && dim + 32 * j < cache.head_dim);
      }
    }
  }

  // queries: Rows<Bf16, kWidth>. Values take the registers that keys leave.
  __device__ void score(const SplitCache<Bf16>& cache, const Bf16* queries, int rows,
                        float* scores) {
    float sums[kTiles][kWarpKeys / 8][4] = {};
#pragma unroll
    for (int j = 0; j < kWidth / 32; ++j) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const Bf16* row = queries + (t * kTileRows + n_) * Rows<Bf16, kWidth>::kStride;
        const uint4 low = fragment(row + 32 * j + 8 * c_);
        const uint4 high = fragment(row + 8 * Rows<Bf16, kWidth>::kStride + 32 * j + 8 * c_);
#pragma unroll
        for (int k = 0; k < kWarpKeys / 8; ++k) {
          const uint4 key = keys_[j][k];
          multiply_tiles(sums[t][k], low.x, high.x, low.y, high.y, key.x, key.y);
          multiply_tiles(sums[t][k], low.z, high.z, low.w, high.w, key.z, key.w);
        }
      }
      load_values(cache, 4 * j);
    }
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int k = 0; k < kWarpKeys / 8; ++k) {
        const int row = t * kTileRows + n_;
        float* to = scores + row * kScoreStride + warp() * kWarpKeys + 8 * k + 2 * c_;
        const float* sum = sums[t][k];
        if (row < rows) *reinterpret_cast<float2*>(to) = make_float2(sum[0], sum[1]);
        to += 8 * kScoreStride;
        if (row + 8 < rows) *reinterpret_cast<float2*>(to) = make_float2(sum[2], sum[3]);
      }
    }
  }

  // weights: Rows<Bf16, kSplit>; sums: Out.
  __device__ void weigh(const SplitCache<Bf16>& cache, const Bf16* weights, int rows,
                        float* sums) const {
    const bool any = group() * Out::kGroupKeys < cache.positions;
#pragma unroll 1
    for (int t = 0; t * kTileRows < rows; ++t) {
      float sum[8][4] = {};
      if (any) {
        const Bf16* row = weights + (t * kTileRows + n_) * Rows<Bf16, kSplit>::kStride +
                          group() * Out::kGroupKeys + 8 * c_;
#pragma unroll
        for (int k = 0; k < Out::kGroupKeys / 32; ++k) {
          const uint4 low = fragment(row + 32 * k);
          const uint4 high = fragment(row + 8 * Rows<Bf16, kSplit>::kStride + 32 * k);
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            multiply_tiles(sum[j], low.x, high.x, low.y, high.y, pair(k, 0, j), pair(k, 2, j));
            multiply_tiles(sum[j], low.z, high.z, low.w, high.w, pair(k, 4, j), pair(k, 6, j));
          }
        }
      }
      // Column n of product j is dimension 8 n + j.
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int to = t * kTileRows + 8 * half + n_;
        if (to >= rows) continue;
#pragma unroll
        for (int quad = 0; quad < 4; ++quad) {
          const int j = quad % 2 * 4, column = 2 * half + quad / 2;
          *Out::at(sums, group(), to, slice() * 16 + 4 * c_ + quad) = make_float4(
              sum[j][column], sum[j + 1][column], sum[j + 2][column], sum[j + 3][column]);
        }
      }
    }
  }

 private:
  static __device__ int warp() { return threadIdx.x / 32; }
  static __device__ int group() { return warp() / Out::kSlices; }
  static __device__ int slice() { return warp() % Out::kSlices; }
  static __device__ uint4 fragment(const Bf16* at) { return *reinterpret_cast<const uint4*>(at); }

  // Four of the values' loads.
  __device__ void load_values(const SplitCache<Bf16>& cache, int first) {
    const int dim = slice() * 64 + 8 * n_;
#pragma unroll
    for (int load = first; load < first + 4; ++load) {
      const int key = group() * Out::kGroupKeys + load / 8 * 32 + 8 * c_ + load % 8;
      const uint4 v = load_or_zero(cache.values + key * cache.head_dim + dim,
                                   key < cache.positions && dim < cache.head_dim);
      values_[load / 8][load % 8][0] = v.x;
      values_[load / 8][load % 8][1] = v.y;
      values_[load / 8][load % 8][2] = v.z;
      values_[load / 8][load % 8][3] = v.w;
    }
  }

  // Dimension j of two keys that follow one another.
  __device__ uint32_t pair(int k, int key, int j) const {
    return __byte_perm(values_[k][key][j / 2], values_[k][key + 1][j / 2],
                       j % 2 == 0 ? 0x5410 : 0x7632);
  }

  int n_, c_;
  uint4 keys_[kWidth / 32][kWarpKeys / 8];
  uint32_t values_[Out::kGroupKeys / 32][8][4];
};

// In fp32.
template <int kWidth>
class SplitTiles<float, kWidth, 1> {
  using Out = Sums<kWidth, 1>;

 public:
  __device__ void load_keys(const SplitCache<float>&) {}

  // Eight lanes share a key.
  __device__ void score(const SplitCache<float>& cache, const float* queries, int rows,
                        float* scores) const {
    constexpr int kPieces = kWidth / 32;
    const int lane = threadIdx.x % 32, dim = 4 * (lane % 8);
    const int end = (threadIdx.x / 32 + 1) * kWarpKeys;
#pragma unroll 1
    for (int key = end - kWarpKeys + lane / 8; key < end; key += 16) {
      float4 keys[4][kPieces];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int i = 0; i < kPieces; ++i) {
          keys[k][i] = as_floats(
              load_or_zero(cache.keys + (key + 4 * k) * cache.head_dim + dim + 32 * i,
                           key + 4 * k < cache.positions && dim + 32 * i < cache.head_dim));
        }
      }
#pragma unroll 1
      for (int row = 0; row < rows; ++row) {
        const float* query = queries + row * Rows<float, kWidth>::kStride + dim;
        float sum[4] = {};
#pragma unroll
        for (int i = 0; i < kPieces; ++i) {
          const float4 q = *reinterpret_cast<const float4*>(query + 32 * i);
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            sum[k] = multiply_add(q.x, keys[k][i].x, sum[k]);
            sum[k] = multiply_add(q.y, keys[k][i].y, sum[k]);
            sum[k] = multiply_add(q.z, keys[k][i].z, sum[k]);
            sum[k] = multiply_add(q.w, keys[k][i].w, sum[k]);
          }
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
          for (int other = 4; other > 0; other /= 2) {
            sum[k] = __fadd_rn(sum[k], __shfl_xor_sync(~0u, sum[k], other));
          }
          if (lane % 8 == 0) scores[row * kScoreStride + key + 4 * k] = sum[k];
        }
      }
    }
  }

  // Half a warp takes the 64 dimensions of a key.
  __device__ void weigh(const SplitCache<float>& cache, const float* weights, int rows,
                        float* sums) const {
    const int warp = threadIdx.x / 32, half = threadIdx.x % 32 / 16, quad = threadIdx.x % 16;
    const int group = warp / Out::kSlices, slice = warp % Out::kSlices;
    const int dim = slice * 64 + 4 * quad;
    const int begin = group * Out::kGroupKeys;
    const int end = min(begin + Out::kGroupKeys, cache.positions);
    float sum[kTileRows][4] = {};
#pragma unroll 1
    for (int key = begin + 4 * half; key - 4 * half < end; key += 8) {
      float4 value[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        value[i] = as_floats(load_or_zero(cache.values + (key + i) * cache.head_dim + dim,
                                          key + i < cache.positions && dim < cache.head_dim));
      }
#pragma unroll
      for (int row = 0; row < kTileRows; ++row) {
        if (row >= rows) break;
        const float4 w =
            *reinterpret_cast<const float4*>(weights + row * Rows<float, kSplit>::kStride + key);
        add(sum[row], w.x, value[0]);
        add(sum[row], w.y, value[1]);
        add(sum[row], w.z, value[2]);
        add(sum[row], w.w, value[3]);
      }
    }
#pragma unroll
    for (int row = 0; row < kTileRows; ++row) {
      if (row >= rows) break;
#pragma unroll
      for (float& x : sum[row]) x = __fadd_rn(x, __shfl_xor_sync(~0u, x, 16));
      if (half == 0) {
        *Out::at(sums, group, row, slice * 16 + quad) =
            make_float4(sum[row][0], sum[row][1], sum[row][2], sum[row][3]);
      }
    }
  }

 private:
  static __device__ float4 as_floats(uint4 v) {
    return make_float4(__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z),
                       __uint_as_float(v.w));
  }
  static __device__ void add(float (&sum)[4], float weight, float4 value) {
    sum[0] = multiply_add(weight, value.x, sum[0]);
    sum[1] = multiply_add(weight, value.y, sum[1]);
    sum[2] = multiply_add(weight, value.z, sum[2]);
    sum[3] = multiply_add(weight, value.w, sum[3]);
  }
};

// Softmax of one row by one warp, over its first `keys` scores. Returns (most, sum) of base 2;
// weights behind the last key are zero.
template <typename T>
__device__ inline float2 softmax(const float* scores, int keys, float scale, T* weights) {
  constexpr int kPieces = kSplit / 128;
  const int lane = threadIdx.x % 32;
  float x[kPieces][4];
  float most = -INFINITY;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int key = 128 * i + 4 * lane;
    const float4 s = *reinterpret_cast<const float4*>(scores + key);
    x[i][0] = s.x, x[i][1] = s.y, x[i][2] = s.z, x[i][3] = s.w;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      x[i][k] = key + k < keys ? __fmul_rn(x[i][k], scale) : -INFINITY;
      most = fmaxf(most, x[i][k]);
    }
  }
#pragma unroll
  for (int other = 16; other > 0; other /= 2) {
    most = fmaxf(most, __shfl_xor_sync(~0u, most, other));
  }
  float total = 0;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    alignas(4 * sizeof(T)) T rounded_weights[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float weight = exp2f(__fsub_rn(x[i][k], most));
      total = __fadd_rn(total, weight);
      rounded_weights[k] = rounded<T>(weight);
    }
    T* to = weights + 128 * i + 4 * lane;
    if constexpr (sizeof(T) == 2) {
      *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(rounded_weights);
    } else {
      *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(rounded_weights);
    }
  }
  return make_float2(most, warp_sum(total));
}

}  // namespace mambify::kernels::attention
