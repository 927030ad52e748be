// How both passes of the scan divide their work.
//
// A block takes a document and some channels, a warp some of these. Its lanes are a grid: kLanes of
// them share a channel's states, kStates each, the others are further channels, kChannels each. A
// chunk of tokens is brought to shared memory in fp32 at a time, where step sizes are already what
// softplus makes of them. What is behind a document's last token is zeros, which change no state.
// Within a chunk, threads take parts of kPart tokens, whose sums over lanes they form together.
#pragma once

#include <algorithm>

#include "kernels/cuda/elements.cuh"
#include "kernels/scan_checkpoints.h"
#include "kernels/selective_scan/params.h"

namespace mambify::kernels::scan {

inline constexpr int kStates = 4;
inline constexpr int kChunk = static_cast<int>(kCheckpointInterval);
inline constexpr int kPart = 4, kParts = kChunk / kPart;

template <int kLanes_, int kChannels_, int kWarps_>
struct Layout {
  static constexpr int kLanes = kLanes_, kChannels = kChannels_, kWarps = kWarps_;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kColumns = 32 / kLanes;                // lanes that differ in channels
  static constexpr int kWarpChannels = kColumns * kChannels;  // neighbours, in one group
  static constexpr int kTile = kWarps * kWarpChannels;        // channels of a block
  static constexpr int kWidth = kLanes * kStates;  // of a token's states where they are staged
};

// Where the groups of B, or of C, are: one for all warps of a block, or one for each.
struct Groups {
  int width = 0;  // channels of a group
  int slots = 0;  // that a block keeps in shared memory: 1 or as many as warps
};
struct Division {
  Groups b, c;
  bool channels_in_fours = false;  // x and dt, and B and C, can be read four elements at a time
  bool states_in_fours = false;
};

template <typename L, typename T>
Division division_of(const SelectiveScanCudaParams<T>& p) {
  const auto groups = [&](int64_t count) {
    const auto width = static_cast<int>(p.channels / count);
    return Groups{width, count == 1 || width % L::kTile == 0 ? 1 : L::kWarps};
  };
  return {.b = groups(p.b_groups),
          .c = groups(p.c_groups),
          .channels_in_fours = p.channels % 4 == 0 && in_vectors(p.x, p.x_stride, 4) &&
                               in_vectors(p.dt, p.dt_stride, 4),
          .states_in_fours = p.d_state % 4 == 0 && in_vectors(p.B, p.b_stride, 4) &&
                             in_vectors(p.C, p.c_stride, 4)};
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

// Four elements, of which `count` exist; the others are zeros.
template <typename T>
__device__ inline Elements<4> load_four(const T* from, int count, bool in_one) {
  if (in_one && count > 0) return load_elements<4>(from);
  Elements<4> values{};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < count) values[i] = as_float(from[i]);
  }
  return values;
}

template <typename T>
__device__ inline void store_four(const Elements<4>& values, T* to, int count, bool in_one) {
  if (in_one && count > 0) return store_elements(values, to);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < count) to[i] = rounded<T>(values[i]);
  }
}

// Calls f(k, c, count) for each four places from (k, c) on of a chunk's [kChunk, kTile], some in
// each thread; `count` of them are of tokens and channels that exist.
template <typename L, typename F>
__device__ inline void each_four(int steps, int channels, const F& f) {
  static_assert(L::kTile % 4 == 0);
  constexpr int kFours = L::kTile / 4;
#pragma unroll 2
  for (int i = threadIdx.x; i < kChunk * kFours; i += L::kThreads) {
    const int k = i / kFours, c = i % kFours * 4;
    f(k, c, k < steps ? min(4, channels - c) : 0);
  }
}

// B or C of some tokens to shared memory: target[slot][kChunk][kWidth].
template <typename L, typename T>
__device__ inline void stage_states(const T* rows, int stride, int steps, int d_state,
                                    const Groups& groups, int first_channel, int channels,
                                    bool in_fours, float* target) {
  constexpr int kFours = L::kWidth / 4;
  for (int slot = 0; slot < groups.slots; ++slot) {
    const int channel = min(slot * L::kWarpChannels, channels - 1);
    const T* group = rows + (first_channel + channel) / groups.width * d_state;
    float* place = target + slot * kChunk * L::kWidth;
#pragma unroll 4
    for (int i = threadIdx.x; i < kChunk * kFours; i += L::kThreads) {
      const int k = i / kFours, n = i % kFours * 4;
      store_elements(load_four(group + k * stride + n, k < steps ? d_state - n : 0, in_fours),
                     place + i * 4);
    }
  }
}

// kCount numbers in a row, their address a multiple of their bytes.
template <int kCount>
__device__ inline void load_floats(const float* from, float (&to)[kCount]) {
  const Elements<kCount> values = load_elements<kCount>(from);
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = values[i];
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

// Step sizes as softplus makes them, from four raw ones.
template <typename T>
__device__ inline Elements<4> steps_of(const SelectiveScanCudaParams<T>& p, const T* raw,
                                       int channel, int count, bool in_one) {
  Elements<4> dt = load_four(raw, count, in_one);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float bias = p.dt_bias && i < count ? p.dt_bias[channel + i] : 0.0f;
    dt[i] = i < count ? softplus_of(dt[i] + bias) : 0.0f;
  }
  return dt;
}

// One step of the states, h = exp(dt A) h + u B, where A is times log2(e) and u is dt x.
template <int kChannels>
__device__ inline void advance(float (&h)[kChannels][kStates], const float (&A)[kChannels][kStates],
                               const float (&dt)[kChannels], const float (&u)[kChannels],
                               const float (&B)[kStates]) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
#pragma unroll
    for (int i = 0; i < kStates; ++i) h[c][i] = fast_exp2(dt[c] * A[c][i]) * h[c][i] + u[c] * B[i];
  }
}

// Calls f.template operator()<Layout>() with the layout for these sizes: that for up to 16 states,
// or that for up to 64, where the groups have as many channels as a warp takes.
template <typename Layout16, typename Layout64, typename T, typename F>
void with_layout(const SelectiveScanCudaParams<T>& p, const F& f) {
  const int64_t b_width = p.channels / p.b_groups, c_width = p.channels / p.c_groups;
  const auto fits = [&]<typename L>(L) {
    return p.d_state <= L::kWidth && b_width % L::kWarpChannels == 0 &&
           c_width % L::kWarpChannels == 0;
  };
  using Layout128 = Layout<32, 4, 4>;
  if (fits(Layout16())) return f.template operator()<Layout16>();
  if (fits(Layout64())) return f.template operator()<Layout64>();
  if (fits(Layout128())) return f.template operator()<Layout128>();
  return f.template operator()<Layout<32, 1, 4>>();
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
