// What the multi-step kernels share: reading the rings, convolving, summing over lanes, and how a
// grid is divided into work and prefetching.
#pragma once

#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/multi_step/params.h"

namespace mambify::kernels::multi_step {

constexpr int kTaps = 4;  // the widest convolution
constexpr int kQuad = 4;  // tokens whose outputs are summed over lanes together

// Before the wait for the predecessor, and so past the first cache: that may hold the one of the
// pass before.
__device__ inline PassSequence load_sequence(const PassSequence* at) {
  PassSequence s;
  s.row = __ldcg(&at->row);
  s.first = __ldcg(&at->first);
  s.tokens = __ldcg(&at->tokens);
  s.base = __ldcg(&at->base);
  s.pending = __ldcg(&at->pending);
  s.commit = __ldcg(&at->commit);
  return s;
}

// Places in the rings around one position of a sequence.
class Places {
 public:
  __device__ Places(const PassSequence& s, int slots, int position)
      : row_(s.row * slots), slots_(slots), slot_(position % slots), position_(position) {}

  // Of `offset` positions further, by less than the slots.
  __device__ int at(int offset) const {
    int slot = slot_ + offset;
    if (slot < 0) slot += slots_;
    if (slot >= slots_) slot -= slots_;
    return row_ + slot;
  }
  __device__ bool exists(int offset) const { return position_ + offset >= 0; }

 private:
  int row_, slots_, slot_, position_;
};

// Input of a convolution, `offset` positions further; a product of two 32-bit numbers is cheap.
// It is loaded even where it does not exist: behind a branch it would hold up the loads after it.
template <typename T>
__device__ inline float input_at(const T* channel, int stride, const Places& places, int offset) {
  const float x = as_float(channel[static_cast<int64_t>(places.at(offset)) * stride]);
  return places.exists(offset) ? x : 0.0f;
}

// The filter of one channel in registers. A shorter one has its taps at the end, zeros before them.
template <typename T>
struct Filter {
  float weight[kTaps] = {};
  float bias = 0;
  int skip = 0;

  Filter() = default;
  __device__ Filter(const T* weights, const T* biases, int channel, int d_conv)
      : bias(as_float(biases[channel])), skip(kTaps - d_conv) {
#pragma unroll
    for (int k = 0; k < kTaps; ++k) {
      const float w = as_float(weights[channel * d_conv + max(k - skip, 0)]);
      weight[k] = k >= skip ? w : 0.0f;
    }
  }

  // The inputs that kTokens tokens from `offset` on read, oldest first; none is behind that at
  // `last`.
  template <int kTokens>
  __device__ void load(float (&x)[kTaps - 1 + kTokens], const T* channel, int stride,
                       const Places& places, int offset, int last) const {
#pragma unroll
    for (int k = 0; k < kTaps - 1 + kTokens; ++k) {
      const int at = offset - (kTaps - 1) + k;
      const float input = input_at(channel, stride, places, k < skip ? offset : min(at, last));
      x[k] = k >= skip ? input : 0.0f;
    }
  }

  __device__ float operator()(const float* x, bool activation) const {
    float sum = bias;
#pragma unroll
    for (int k = 0; k < kTaps; ++k) {
      if (k >= skip) sum = multiply_add(weight[k], x[k], sum);
    }
    return round_to<T>(activation ? silu(sum) : sum);
  }
};

// Sums each of kValues over kLanes neighbouring lanes, in the same order for every value. A lane is
// left with value lane / (kLanes / kValues): halves of the values change places with the lane
// opposite, which costs hardly more than the sum of one value.
template <int kValues, int kLanes>
__device__ inline float sum_over_lanes(float (&values)[kValues], int lane) {
  static_assert(kValues <= kLanes);
  int width = kValues;
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    if (width > 1) {
      width /= 2;
      const bool upper = lane & distance;
#pragma unroll
      for (int i = 0; i < kValues / 2; ++i) {
        if (i >= width) break;
        const float sent = upper ? values[i] : values[i + width];
        const float kept = upper ? values[i + width] : values[i];
        values[i] = __fadd_rn(kept, __shfl_xor_sync(~0u, sent, distance));
      }
    } else {
      values[0] = __fadd_rn(values[0], __shfl_xor_sync(~0u, values[0], distance));
    }
  }
  return values[0];
}

// Four neighbouring states of a row of `width`; kExact: there are four, aligned to 16 bytes. Past
// the first cache, which has no use for them.
template <bool kExact>
__device__ inline void load_states(float (&h)[4], const float* row, int first, int width) {
  if constexpr (kExact) {
    const float4 v = __ldcg(reinterpret_cast<const float4*>(row + first));
    h[0] = v.x, h[1] = v.y, h[2] = v.z, h[3] = v.w;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float v = __ldcg(row + min(first + i, width - 1));
      h[i] = first + i < width ? v : 0.0f;
    }
  }
}
template <bool kExact>
__device__ inline void store_states(float* row, const float (&h)[4], int first, int width) {
  if constexpr (kExact) {
    *reinterpret_cast<float4*>(row + first) = make_float4(h[0], h[1], h[2], h[3]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (first + i < width) row[first + i] = h[i];
    }
  }
}
__device__ inline void load_shared(float (&v)[4], const float* at) {
  const float4 quad = *reinterpret_cast<const float4*>(at);
  v[0] = quad.x, v[1] = quad.y, v[2] = quad.z, v[3] = quad.w;
}

// The quotient of numbers up to 2^21 and one of them, cheaper than the device divides.
class Divider {
 public:
  explicit Divider(int64_t by) : inverse_(1.0f / static_cast<float>(by)) {}
  __device__ int operator()(int number) const {
    return static_cast<int>(__fmul_rn(static_cast<float>(number) + 0.5f, inverse_));
  }

 private:
  float inverse_;
};

// Brings `bytes`, a multiple of 16 from an address of 16 bytes, on their way to the L2 cache; by
// one thread.
__device__ inline void prefetch_span(const void* data, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(data), "r"(bytes) : "memory");
#endif
}

// Blocks behind those that work, for what is to be prefetched: enough threads to keep memory busy.
inline int64_t prefetch_blocks(const Prefetch& next) {
  constexpr int64_t kBytesEach = 32 << 10, kMost = 264;
  return std::min((next.bytes + kBytesEach - 1) / kBytesEach, kMost);
}

}  // namespace mambify::kernels::multi_step
