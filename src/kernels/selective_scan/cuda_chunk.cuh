// A chunk of tokens in the backward pass: its inputs on their way to shared memory, and the
// gradients of x and dt on theirs to global memory.
#pragma once

#include "kernels/selective_scan/cuda.cuh"

namespace mambify::kernels::scan {

constexpr float kLn2 = 0.693147181f;

template <typename L>
struct SharedMemory {
  static constexpr int kStateVectors = (kParts - 1) * L::kChannels * L::kThreads;
  static constexpr int kSumsFloats = kPart * L::kWarps * L::kWidth;

  static constexpr int floats(int slots) {
    return StepTile<L>::kFloats + kChunk * L::kTile + 4 * kStateVectors +
           slots * kChunk * L::kWidth + 2 * kSumsFloats;
  }
  // A multiprocessor has 228 KB, of which a block takes one more than it asks for.
  static constexpr int kBlocks = 228 * 1024 / (4 * floats(/*slots=*/2) + 1024);

  __device__ SharedMemory(float4* memory, const Division& division)
      : states(memory),
        steps{reinterpret_cast<float*>(memory + kStateVectors)},
        dy(steps.data + StepTile<L>::kFloats),
        B(dy + kChunk * L::kTile),
        C(B + division.b.slots * kChunk * L::kWidth),
        dB(C + division.c.slots * kChunk * L::kWidth),
        dC(dB + kSumsFloats) {}

  float4* states;  // [kParts - 1, kChannels, kThreads]: each thread's own, before parts 1 and on
  StepTile<L> steps;
  float* dy;  // [kChunk, kTile]
  float *B, *C;
  float *dB, *dC;  // [kPart, kWarps, kWidth]: of a part, by warp
};

template <typename L>
__device__ inline void store_state(const float (&h)[L::kChannels][kStates], float4* states,
                                   int place) {
#pragma unroll
  for (int c = 0; c < L::kChannels; ++c) {
    states[(place * L::kChannels + c) * L::kThreads + threadIdx.x] =
        make_float4(h[c][0], h[c][1], h[c][2], h[c][3]);
  }
}
template <typename L>
__device__ inline void load_state(float (&h)[L::kChannels][kStates], const float4* states,
                                  int place) {
#pragma unroll
  for (int c = 0; c < L::kChannels; ++c) {
    const float4 v = states[(place * L::kChannels + c) * L::kThreads + threadIdx.x];
    h[c][0] = v.x, h[c][1] = v.y, h[c][2] = v.z, h[c][3] = v.w;
  }
}

// A chunk's rows of the block's channels in global memory. Within it, addresses need no more than
// 32 bits.
template <typename T>
struct Rows {
  __device__ Rows(const SelectiveScanCudaBackwardParams<T>& b, int64_t token, int64_t channel)
      : x(b.forward.x + token * b.forward.x_stride + channel),
        dt(b.forward.dt + token * b.forward.dt_stride + channel),
        dy(b.dy + token * b.forward.channels + channel),
        dx(b.dx + token * b.forward.channels + channel),
        ddt(b.ddt + token * b.forward.channels + channel),
        x_stride(static_cast<int>(b.forward.x_stride)),
        dt_stride(static_cast<int>(b.forward.dt_stride)),
        stride(static_cast<int>(b.forward.channels)) {}

  const T *x, *dt, *dy;
  T *dx, *ddt;
  int x_stride, dt_stride, stride;
};

// What the steps of a chunk read, to shared memory.
template <bool kWhole, typename L, typename T>
__device__ inline void stage(const SelectiveScanCudaParams<T>& p, const Division& division,
                             const Rows<T>& rows, const SharedMemory<L>& shared,
                             const Thread<L>& at, int64_t token, int steps) {
  each_four<kWhole, L::kThreads, L::kTile>(steps, at.channels, [&](int k, int c, int count) {
    const Elements<4> x = load_four<kWhole>(rows.x + k * rows.x_stride + c, count),
                      dy = load_four<kWhole>(rows.dy + k * rows.stride + c, count),
                      raw = load_four<kWhole>(rows.dt + k * rows.dt_stride + c, count),
                      bias = load_parameters(p.dt_bias, at.first_of_block + c, count),
                      dt = steps_of(raw, bias, count);
    Elements<4> u;
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = dt[i] * x[i];
    shared.steps.store_four(k, c, dt, u);
    store_elements(dy, shared.dy + k * L::kTile + c);
  });
  const auto d_state = static_cast<int>(p.d_state);
  stage_states<kWhole>(p.B + token * p.b_stride, static_cast<int>(p.b_stride), steps, d_state,
                       division.b, at, shared.B);
  stage_states<kWhole>(p.C + token * p.c_stride, static_cast<int>(p.c_stride), steps, d_state,
                       division.c, at, shared.C);
}

// Asks for what the staging of a whole chunk will read, each lane for a row, as if groups were of
// whole blocks.
template <typename L, typename T>
__device__ inline void prefetch(const SelectiveScanCudaBackwardParams<T>& b,
                                const Division& division, const Thread<L>& at, int64_t token,
                                int64_t checkpoint) {
  static_assert(kChunk == 32);
  constexpr int kLine = 128, kArrays = 5;
  const SelectiveScanCudaParams<T>& p = b.forward;
  const int64_t row = token + at.lane, first = at.first_of_block;
  for (int array = at.warp; array < kArrays; array += L::kWarps) {
    const T* from = array == 0   ? p.x + row * p.x_stride + first
                    : array == 1 ? p.dt + row * p.dt_stride + first
                    : array == 2 ? b.dy + row * p.channels + first
                    : array == 3 ? p.B + row * p.b_stride + first / division.b.width * p.d_state
                                 : p.C + row * p.c_stride + first / division.c.width * p.d_state;
    const int bytes = static_cast<int>(sizeof(T)) * (array < 3 ? L::kTile : L::kWidth);
    for (int byte = 0; byte < bytes; byte += kLine) {
      prefetch_line(reinterpret_cast<const char*>(from) + byte);
    }
  }
  const auto states = static_cast<int>(at.channels * p.d_state);
  const float* from = p.checkpoints + (checkpoint * p.channels + first) * p.d_state;
  for (int i = threadIdx.x * 32; i < states; i += L::kThreads * 32) prefetch_line(from + i);
}

// dx and ddt of a chunk, from the sums over states that have taken the places of u and dy. Adds the
// chunk's ddt_bias and dD to those of the channel that has the thread's number in the block.
template <bool kWhole, typename L, typename T>
__device__ inline void finish(const SelectiveScanCudaParams<T>& p, const Rows<T>& rows,
                              const SharedMemory<L>& shared, const Thread<L>& at, int steps,
                              float& ddt_bias, float& dD) {
  Elements<4> of_bias{}, of_D{};
  each_four<kWhole, L::kThreads, L::kTile>(steps, at.channels, [&](int k, int c, int count) {
    const Elements<4> x = load_four<kWhole>(rows.x + k * rows.x_stride + c, count),
                      dy = load_four<kWhole>(rows.dy + k * rows.stride + c, count),
                      raw = load_four<kWhole>(rows.dt + k * rows.dt_stride + c, count),
                      bias = load_parameters(p.dt_bias, at.first_of_block + c, count),
                      skip = load_parameters(p.D, at.first_of_block + c, count),
                      along_A = load_elements<4>(shared.dy + k * L::kTile + c);
    Elements<4> dt, along_B, dx, ddt;
    shared.steps.load_four(k, c, dt, along_B);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      dx[i] = along_B[i] * dt[i] + skip[i] * dy[i];
      // softplus' is the sigmoid.
      ddt[i] = (kLn2 * along_A[i] + along_B[i] * x[i]) * sigmoid(raw[i] + bias[i]);
      if (i < count) of_bias[i] += ddt[i];
      of_D[i] += dy[i] * x[i];
    }
    store_four<kWhole>(dx, rows.dx + k * rows.stride + c, count);
    store_four<kWhole>(ddt, rows.ddt + k * rows.stride + c, count);
  });

  // Each kFours-th thread has the same channels. They meet where states were.
  constexpr int kFours = L::kTile / 4;
  static_assert(kFours <= 32 && L::kTile <= L::kThreads);
#pragma unroll
  for (int distance = kFours; distance < 32; distance *= 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      of_bias[i] += __shfl_xor_sync(~0u, of_bias[i], distance);
      of_D[i] += __shfl_xor_sync(~0u, of_D[i], distance);
    }
  }
  float* warps_bias = reinterpret_cast<float*>(shared.states);
  float* warps_D = warps_bias + L::kWarps * L::kTile;
  if (at.lane < kFours) {
    store_elements(of_bias, warps_bias + at.warp * L::kTile + at.lane * 4);
    store_elements(of_D, warps_D + at.warp * L::kTile + at.lane * 4);
  }
  __syncthreads();
  if (threadIdx.x < L::kTile) {
#pragma unroll
    for (int warp = 0; warp < L::kWarps; ++warp) {
      ddt_bias += warps_bias[warp * L::kTile + threadIdx.x];
      dD += warps_D[warp * L::kTile + threadIdx.x];
    }
  }
}

}  // namespace mambify::kernels::scan
