// Scores of a split that stay in the registers of the warp that computed them: products of queries
// and keys put them where the products with values want them. Every sum is that of split.cuh.
#pragma once

#include "kernels/pass_attention/split.cuh"

namespace mambify::kernels::attention {

// Where a vector of a position is kept in shared memory: what eight lanes read at once lies in
// different banks, whether these are two positions' keys or eight positions' values.
__device__ inline int swizzle(int position) { return (position & 1) << 2 | (position >> 3 & 3); }

__device__ inline void load_transposed(uint32_t (&v)[4], const uint4* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}

__device__ inline uint32_t pack_pair(float low, float high) {
  return static_cast<uint32_t>(rounded<Bf16>(high).bits) << 16 | rounded<Bf16>(low).bits;
}

// [8 positions of a product][row g, row g + 8, ...][2 positions] of lane 4 g + c.
template <int kHalves>
using Scores = float[kSplit / 8][2 * kHalves];

// Softmax of row `half`, as split.cuh's: threads' sums there are of positions 4 L to 4 L + 3 and
// of those 128 further, and are added by halves of the warp. Returns (most, sum).
template <int kHalves>
__device__ inline float2 softmax(Scores<kHalves>& scores, int half, int keys, float scale) {
  const int c = threadIdx.x % 4;
  float most = -INFINITY;
#pragma unroll
  for (int n = 0; n < kSplit / 8; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float& x = scores[n][2 * half + e];
      const int key = n / 4 * 32 + 8 * c + n % 4 * 2 + e;
      x = key < keys ? __fmul_rn(x, scale) : -INFINITY;
      most = fmaxf(most, x);
    }
  }
  most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
  most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
  float sums[kSplit / 64][2];  // of 32 positions and those 128 further, by their fours
#pragma unroll
  for (int b = 0; b < kSplit / 64; ++b) {
#pragma unroll
    for (int four = 0; four < 2; ++four) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float& x = scores[(b + i / 4 * (kSplit / 64)) * 4 + four * 2 + i / 2 % 2][2 * half + i % 2];
        x = exp2f(__fsub_rn(x, most));
        sum = __fadd_rn(sum, x);
      }
      sums[b][four] = sum;
    }
  }
  float total[2];
#pragma unroll
  for (int four = 0; four < 2; ++four) {
    total[four] =
        __fadd_rn(__fadd_rn(sums[0][four], sums[2][four]), __fadd_rn(sums[1][four], sums[3][four]));
    total[four] = __fadd_rn(total[four], __shfl_xor_sync(~0u, total[four], 2));
    total[four] = __fadd_rn(total[four], __shfl_xor_sync(~0u, total[four], 1));
  }
  return make_float2(most, __fadd_rn(total[0], total[1]));
}

}  // namespace mambify::kernels::attention
