// What the splits of a sequence give a token's heads, and how it is put together: in order, groups
// of kAttentionGroup first. A token has as many parts as its position asks for.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/pass_attention/params.h"

namespace mambify::kernels::attention {

inline constexpr int kGroup = static_cast<int>(kAttentionGroup);

// Of a head of a token: a slot for each split, then one for each group of them.
__host__ __device__ inline int64_t group_slots(int64_t splits) {
  return (splits + kGroup - 1) / kGroup;
}
// Even, so that every slot's sums are aligned to 16 bytes.
__host__ __device__ inline int64_t part_slots(int64_t splits) {
  return (splits + group_slots(splits) + 1) / 2 * 2;
}

// A softmax over some of the positions: sum of 2^(score - most), and four of the sums of values
// that are weighted by the same.
struct Part {
  float most = -INFINITY;
  float total = 0;
  float4 sums = {0, 0, 0, 0};
};

// The slots of one head of one token.
struct Slots {
  float* sums;     // [slots, head_dim]
  float2* totals;  // [slots], (most, total)
  int head_dim;

  __device__ float4* at(int slot, int quad) const {
    return reinterpret_cast<float4*>(sums + static_cast<int64_t>(slot) * head_dim) + quad;
  }
  __device__ void write(int slot, int quad, const Part& part) const {
    __stcg(at(slot, quad), part.sums);
    if (quad == 0) __stcg(totals + slot, make_float2(part.most, part.total));
  }
};

__device__ inline void scale_add(float4& sums, float weight, float4 more) {
  sums.x = multiply_add(weight, more.x, sums.x);
  sums.y = multiply_add(weight, more.y, sums.y);
  sums.z = multiply_add(weight, more.z, sums.z);
  sums.w = multiply_add(weight, more.w, sums.w);
}

// What two softmaxes, of which `part` is that of the positions behind, are together.
struct Weights {
  float most, kept, part;  // the larger score; what both are multiplied by
};
__device__ inline Weights weights_of(float most, float part_most) {
  const float larger = fmaxf(most, part_most);
  return {larger, exp2f(__fsub_rn(most, larger)), exp2f(__fsub_rn(part_most, larger))};
}
__device__ inline float join(const Weights& weights, float all, float part) {
  return multiply_add(weights.part, part, __fmul_rn(all, weights.kept));
}

// Slots first to first + count, at least one. The reads of a group are on their way together.
__device__ inline Part put_together(const Slots& slots, int first, int count, int quad) {
  Part all;
  for (int begin = 0; begin < count; begin += kGroup) {
    float2 totals[kGroup];
    float4 sums[kGroup];
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (begin + i < count) {
        totals[i] = __ldcg(slots.totals + first + begin + i);
        sums[i] = __ldcg(slots.at(first + begin + i, quad));
      }
    }
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (begin + i >= count) break;
      if (begin + i == 0) {
        all = {totals[0].x, totals[0].y, sums[0]};
        continue;
      }
      const Weights weights = weights_of(all.most, totals[i].x);
      all.most = weights.most;
      all.total = join(weights, all.total, totals[i].y);
      all.sums =
          make_float4(join(weights, all.sums.x, sums[i].x), join(weights, all.sums.y, sums[i].y),
                      join(weights, all.sums.z, sums[i].z), join(weights, all.sums.w, sums[i].w));
    }
  }
  return all;
}

// Whether this block is the last of `expected` that come here. It then sees what the others have
// written, and the counter is zero again.
__device__ inline bool last_to_arrive(int32_t* counter, int expected) {
  __shared__ bool last;
  // The barrier puts the block's writes before the counter's release, and its acquire before reads.
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t before;
    asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
    last = before == expected - 1;
    if (last) *counter = 0;
  }
  __syncthreads();
  return last;
}

template <typename T>
__device__ inline void write_output(T* y, const Part& part) {
  const float values[4] = {part.sums.x, part.sums.y, part.sums.z, part.sums.w};
  alignas(4 * sizeof(T)) T out[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) out[i] = rounded<T>(__fdiv_rn(values[i], part.total));
  if constexpr (sizeof(T) == 2) {
    *reinterpret_cast<uint2*>(y) = *reinterpret_cast<const uint2*>(out);
  } else {
    *reinterpret_cast<float4*>(y) = *reinterpret_cast<const float4*>(out);
  }
}

}  // namespace mambify::kernels::attention
