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
  // Rows can be read four elements at a time, those of B and C are in a slot each and fill it.
  bool in_fours = false;
};

template <typename L, typename T>
Division division_of(const SelectiveScanCudaParams<T>& p) {
  const auto groups = [&](int64_t count) {
    const auto width = static_cast<int>(p.channels / count);
    return Groups{width, count == 1 || width % L::kTile == 0 ? 1 : L::kWarps};
  };
  const Groups b = groups(p.b_groups), c = groups(p.c_groups);
  return {.b = b,
          .c = c,
          .in_fours = b.slots == 1 && c.slots == 1 && p.d_state == L::kWidth &&
                      in_vectors(p.x, p.x_stride, 4) && in_vectors(p.dt, p.dt_stride, 4) &&
                      in_vectors(p.B, p.b_stride, 4) && in_vectors(p.C, p.c_stride, 4)};
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

// Four elements, of which `count` exist; the others are zeros. kWhole: all do, in one piece.
template <bool kWhole, typename T>
__device__ inline Elements<4> load_four(const T* from, int count) {
  if constexpr (kWhole) {
    return elements_of<T, 4>(__ldg(reinterpret_cast<const ElementBits<T, 4>*>(from)));
  } else {
    Elements<4> values{};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < count) values[i] = as_float(from[i]);
    }
    return values;
  }
}
template <bool kWhole, typename T>
__device__ inline void store_four(const Elements<4>& values, T* to, int count) {
  if constexpr (kWhole) {
    store_elements(values, to);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < count) to[i] = rounded<T>(values[i]);
    }
  }
}

// Calls f(k, c, count) for each four places from (k, c) on of a chunk's [kChunk, kColumns], some in
// each thread, at most `rows` x `columns` of which exist: `count` of the four. kWhole: all do, and
// nothing keeps what is loaded for one four from being asked for together with that for the others.
template <bool kWhole, int kThreads, int kColumns, typename F>
__device__ inline void each_four(int rows, int columns, const F& f) {
  static_assert(kColumns % 4 == 0);
  constexpr int kFours = kColumns / 4, kAll = kChunk * kFours;
  const auto call = [&](int i) {
    const int k = i / kFours, c = i % kFours * 4;
    f(k, c, kWhole ? 4 : k < rows ? min(4, columns - c) : 0);
  };
  if constexpr (kWhole && kAll % kThreads == 0) {
#pragma unroll
    for (int i = 0; i < kAll; i += kThreads) call(i + threadIdx.x);
  } else {
#pragma unroll 1
    for (int i = threadIdx.x; i < kAll; i += kThreads) call(i);
  }
}

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

// B or C of some tokens to shared memory: target[slot][kChunk][kWidth].
template <bool kWhole, typename L, typename T>
__device__ inline void stage_states(const T* rows, int stride, int steps, int d_state,
                                    const Groups& groups, const Thread<L>& at, float* target) {
  for (int slot = 0; slot < (kWhole ? 1 : groups.slots); ++slot) {
    const int channel = at.first_of_block + min(slot * L::kWarpChannels, at.channels - 1);
    const T* group = rows + channel / groups.width * d_state;
    float* place = target + slot * kChunk * L::kWidth;
    each_four<kWhole, L::kThreads, L::kWidth>(steps, d_state, [&](int k, int n, int count) {
      store_elements(load_four<kWhole>(group + k * stride + n, count), place + k * L::kWidth + n);
    });
  }
}

// Asks for what is around an address to be brought to the second cache.
__device__ inline void prefetch_line(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
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

// Four numbers of a parameter vector; null: zeros.
__device__ inline Elements<4> load_parameters(const float* vector, int64_t channel, int count) {
  Elements<4> values{};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (vector && i < count) values[i] = __ldg(vector + channel + i);
  }
  return values;
}

// Step sizes as softplus makes them, from four raw ones; where there is none, 0.
__device__ inline Elements<4> steps_of(const Elements<4>& raw, const Elements<4>& bias, int count) {
  Elements<4> dt;
#pragma unroll
  for (int i = 0; i < 4; ++i) dt[i] = i < count ? softplus_of(raw[i] + bias[i]) : 0.0f;
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

// Step sizes dt and their products u with the inputs, of a chunk in shared memory: a thread's dt
// and then its u lie side by side.
template <typename L>
struct StepTile {
  static constexpr int kFloats = 2 * kChunk * L::kTile, kChannels = L::kChannels;

  // Of channel c's dt; its u is kChannels behind.
  __device__ float* place(int k, int c) const {
    return data + (k * L::kTile + c - c % kChannels) * 2 + c % kChannels;
  }
  __device__ void load(int k, int column, float (&dt)[kChannels], float (&u)[kChannels]) const {
    const float* from = place(k, column);
    if constexpr (kChannels <= 2) {
      const auto both = load_elements<2 * kChannels>(from);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) dt[c] = both[c], u[c] = both[kChannels + c];
    } else {
      load_floats(from, dt);
      load_floats(from + kChannels, u);
    }
  }
  // Those of four channels.
  __device__ void store_four(int k, int c, const Elements<4>& dt, const Elements<4>& u) const {
    Elements<4> halves[2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int first = i / kChannels * 2 * kChannels + i % kChannels, second = first + kChannels;
      halves[first / 4][first % 4] = dt[i];
      halves[second / 4][second % 4] = u[i];
    }
    store_elements(halves[0], place(k, c));
    store_elements(halves[1], place(k, c) + 4);
  }
  __device__ void load_four(int k, int c, Elements<4>& dt, Elements<4>& u) const {
    const Elements<4> halves[] = {load_elements<4>(place(k, c)), load_elements<4>(place(k, c) + 4)};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int first = i / kChannels * 2 * kChannels + i % kChannels, second = first + kChannels;
      dt[i] = halves[first / 4][first % 4];
      u[i] = halves[second / 4][second % 4];
    }
  }

  float* data;  // [kChunk, kTile / kChannels, 2, kChannels]
};

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
