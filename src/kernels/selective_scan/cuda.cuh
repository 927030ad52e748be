// How both passes of the scan divide their work.
//
// A block takes a document and some channels, a warp some of these. Its lanes are a grid: kLanes of
// them share a channel's states, kStates each, the others are further channels, kChannels each. A
// chunk of tokens is brought to shared memory in fp32 at a time, where step sizes are already what
// softplus makes of them.
#pragma once

#include <algorithm>

#include "kernels/cuda/elements.cuh"
#include "kernels/scan_checkpoints.h"
#include "kernels/selective_scan/params.h"

namespace mambify::kernels::scan {

inline constexpr int kStates = 4;
inline constexpr int kChunk = static_cast<int>(kCheckpointInterval);
inline constexpr int kMostWarps = 8;

template <int kLanes_, int kChannels_>
struct Layout {
  static constexpr int kLanes = kLanes_, kChannels = kChannels_;
  static constexpr int kColumns = 32 / kLanes;                // lanes that differ in channels
  static constexpr int kWarpChannels = kColumns * kChannels;  // neighbours, in one group
  static constexpr int kWarps = kLanes <= 4 && kChannels > 1 ? 4 : kMostWarps;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kTile = kWarps * kWarpChannels;  // channels of a block
};

// Where the groups of B, or of C, are: one for all warps of a block, or one for each.
struct Groups {
  int width = 0;  // channels of a group
  int slots = 0;  // that a block keeps in shared memory: 1 or as many as warps
};
struct Division {
  Groups b, c;
  int state_stride = 0;  // of a token's states in shared memory: a multiple of kStates
};

template <typename L, typename T>
Division division_of(const SelectiveScanCudaParams<T>& p) {
  const auto groups = [&](int64_t count) {
    const auto width = static_cast<int>(p.channels / count);
    return Groups{width, count == 1 || width % L::kTile == 0 ? 1 : L::kWarps};
  };
  const auto d_state = static_cast<int>(p.d_state);
  return {groups(p.b_groups), groups(p.c_groups), (d_state + kStates - 1) / kStates * kStates};
}

// The first checkpoint of a document; those of its predecessors are at most as many.
__device__ inline int64_t first_checkpoint(const int32_t* starts, int document) {
  return starts[document] / kChunk + document;
}
inline int64_t most_checkpoints(int64_t tokens, int64_t documents) {
  return tokens / kChunk + documents;
}

// log(1 + e^x) as kernels/math.h has it.
__device__ inline float softplus_of(float x) {
  const float u = fast_exp2(-fabsf(x) * kLog2E);
  const float s = __fdividef(u, 2.0f + u), q = s * s;
  float p = 1.0f / 13;
  p = p * q + 1.0f / 11;
  p = p * q + 1.0f / 9;
  p = p * q + 1.0f / 7;
  p = p * q + 1.0f / 5;
  p = p * q + 1.0f / 3;
  p = p * q + 1.0f;
  return fmaxf(x, 0.0f) + 2.0f * s * p;
}

// Rows [steps, channels of the tile] to shared memory: target[k * kTile + c] = f(value, channel),
// 0 behind the last channel.
template <typename L, typename T, typename F>
__device__ inline void stage_channels(const T* rows, int64_t stride, int steps, int channels,
                                      float* target, const F& f) {
#pragma unroll 4
  for (int i = threadIdx.x; i < steps * L::kTile; i += L::kThreads) {
    const int c = i % L::kTile;
    target[i] = c < channels ? f(as_float(rows[i / L::kTile * stride + c]), c) : 0.0f;
  }
}

// B or C of some tokens to shared memory: target[slot][k][state_stride].
template <typename L, typename T>
__device__ inline void stage_states(const T* rows, int64_t stride, int steps, int d_state,
                                    int state_stride, const Groups& groups, int first_channel,
                                    int channels, float* target) {
  for (int slot = 0; slot < groups.slots; ++slot) {
    const int channel = min(slot * L::kWarpChannels, channels - 1);
    const T* group =
        rows + static_cast<int64_t>((first_channel + channel) / groups.width) * d_state;
    float* place = target + slot * kChunk * state_stride;
#pragma unroll 4
    for (int i = threadIdx.x; i < steps * state_stride; i += L::kThreads) {
      const int k = i / state_stride, n = i - k * state_stride;
      place[i] = n < d_state ? as_float(group[k * stride + n]) : 0.0f;
    }
  }
}

// kStates numbers of a row of shared memory; zeros behind its end.
__device__ inline float4 states_at(const float* row, int n, int end) {
  return n < end ? *reinterpret_cast<const float4*>(row + n) : make_float4(0, 0, 0, 0);
}

// Sums each of v[0 .. kValues) over the lanes whose numbers differ in the bits from kLow to below
// kHigh, and leaves kValues / (kHigh / kLow) of the sums, at least one, in each lane. Returns which
// is v[0].
template <int kValues, int kLow, int kHigh>
__device__ inline int scatter_sums(float* v, int lane) {
  if constexpr (kHigh == kLow) {
    return 0;
  } else if constexpr (kValues == 1) {
    v[0] += __shfl_xor_sync(~0u, v[0], kHigh / 2);
    return scatter_sums<1, kLow, kHigh / 2>(v, lane);
  } else {
    constexpr int kHalf = kValues / 2;
    const bool upper = lane & (kHigh / 2);
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const float sent = upper ? v[i] : v[i + kHalf];
      v[i] = (upper ? v[i + kHalf] : v[i]) + __shfl_xor_sync(~0u, sent, kHigh / 2);
    }
    return (upper ? kHalf : 0) + scatter_sums<kHalf, kLow, kHigh / 2>(v, lane);
  }
}
template <int kValues, int kLow, int kHigh>
inline constexpr int kLeft = std::max(1, kValues / (kHigh / kLow));

// What a thread is in its block.
template <typename L>
struct Thread {
  __device__ explicit Thread(int64_t all_channels)
      : warp(threadIdx.x / 32),
        lane(threadIdx.x % 32),
        first_state(lane % L::kLanes * kStates),
        column(warp * L::kWarpChannels + lane / L::kLanes * L::kChannels),
        first_of_block(static_cast<int>(blockIdx.x) * L::kTile),
        channels(min(L::kTile, static_cast<int>(all_channels) - first_of_block)) {}
  // The channels' groups are whole warps, so that a warp has all of its channels or none.
  __device__ bool works() const { return column < channels; }
  __device__ int slot(const Groups& groups) const { return groups.slots == 1 ? 0 : warp; }

  int warp, lane;
  int first_state;
  int column;          // first channel of the thread in the tile
  int first_of_block;  // first channel of the tile
  int channels;        // of the tile
};

template <typename L, typename T>
__device__ inline void load_A(const SelectiveScanCudaParams<T>& p, const Thread<L>& at,
                              float (&A)[L::kChannels][kStates]) {
#pragma unroll
  for (int c = 0; c < L::kChannels; ++c) {
#pragma unroll
    for (int i = 0; i < kStates; ++i) {
      const int n = at.first_state + i;
      const bool exists = at.works() && n < p.d_state;
      const int64_t channel = at.first_of_block + at.column + c;
      A[c][i] = exists ? p.A[channel * p.d_state + n] * kLog2E : 0.0f;
    }
  }
}

// One step of the states: h = exp(dt A) h + dt x B, where A is times log2(e).
template <int kChannels>
__device__ inline void advance(float (&h)[kChannels][kStates], const float (&A)[kChannels][kStates],
                               const float* dt, const float* x, const float4& B) {
  const float b[kStates] = {B.x, B.y, B.z, B.w};
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const float u = dt[c] * x[c];
#pragma unroll
    for (int i = 0; i < kStates; ++i) h[c][i] = fast_exp2(dt[c] * A[c][i]) * h[c][i] + u * b[i];
  }
}

// Calls f.template operator()<Layout>() with the layout for these sizes: lanes for the states, and
// as many channels a warp as the groups allow.
template <typename T, typename F>
void with_layout(const SelectiveScanCudaParams<T>& p, const F& f) {
  const int64_t b_width = p.channels / p.b_groups, c_width = p.channels / p.c_groups;
  const auto fits = [&](int64_t warp_channels) {
    return b_width % warp_channels == 0 && c_width % warp_channels == 0;
  };
  if (p.d_state <= 16 && fits(16)) return f.template operator()<Layout<4, 2>>();
  if (p.d_state <= 64 && fits(4)) return f.template operator()<Layout<16, 2>>();
  if (fits(2)) return f.template operator()<Layout<32, 2>>();
  return f.template operator()<Layout<32, 1>>();
}

// Throws Error when the sizes do not fit.
template <typename T>
void check(const SelectiveScanCudaParams<T>& p) {
  require(p.d_state >= 1 && p.d_state <= kMostScanStates, "selective_scan: too many states");
  require(p.channels % p.b_groups == 0 && p.channels % p.c_groups == 0,
          "selective_scan: groups do not divide the channels");
  constexpr int64_t kMostDocuments = 65535;
  require(p.documents <= kMostDocuments, "selective_scan: too many documents");
}

template <typename Kernel, typename... Arguments>
void start(Kernel kernel, dim3 grid, int threads, int64_t floats, CudaStream stream,
           const Arguments&... arguments) {
  const auto shared = static_cast<int>(floats * sizeof(float));
  int device = 0, most = 0;
  check_cuda(cudaGetDevice(&device));
  check_cuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  require(shared <= most, "selective_scan: so many states are too many in so narrow groups");
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  kernel<<<grid, threads, shared, static_cast<cudaStream_t>(stream)>>>(arguments...);
  check_cuda(cudaGetLastError());
}

}  // namespace mambify::kernels::scan
