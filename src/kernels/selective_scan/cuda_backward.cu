#include "kernels/cuda/sum_parts.h"
#include "kernels/selective_scan/cuda.cuh"

// Chunks are walked from the last to the first, each from the state that the forward pass left in
// front of it. Within a chunk, states are computed again twice: up to the beginnings of its parts,
// and then, part by part from the last, up to every token.

namespace mambify::kernels {

using namespace scan;

namespace {

constexpr int kPart = 8, kParts = kChunk / kPart;
constexpr float kLn2 = 0.693147181f;

// What documents and blocks add up on their own, before the sums over them.
struct Partial {
  float* dA;        // [documents, channels, d_state]
  float* ddt_bias;  // [documents, channels]; null: not wanted, as below
  float* dD;        // [documents, channels]
  float* dB;        // [tokens, channels / channels of a sum, d_state]
  float* dC;        // the same
};

// Channels that a partial sum of dB, or of dC, is over.
template <typename L>
__host__ __device__ int summed_channels(const Groups& groups) {
  return groups.slots == 1 ? L::kTile : L::kWarpChannels;
}

template <typename L>
struct SharedMemory {
  static constexpr int kTileFloats = kChunk * L::kTile;
  static constexpr int kStateVectors = (kParts + kPart) * L::kChannels * L::kThreads;

  __host__ __device__ static int floats(const Division& division) {
    return 4 * kTileFloats + 4 * kStateVectors +
           (division.b.slots + division.c.slots) * kChunk * division.state_stride +
           2 * kPart * L::kWarps * division.state_stride;
  }
  __device__ SharedMemory(float4* memory, const Division& division)
      : states(memory),
        dt(reinterpret_cast<float*>(memory + kStateVectors)),
        sigmoid(dt + kTileFloats),
        x(sigmoid + kTileFloats),
        dy(x + kTileFloats),
        B(dy + kTileFloats),
        C(B + division.b.slots * kChunk * division.state_stride),
        sums(C + division.c.slots * kChunk * division.state_stride) {}

  float4* states;  // [kParts + kPart, kChannels, kThreads]: each thread's own
  float *dt, *sigmoid;
  float *x, *dy;  // dx and ddt take their places
  float *B, *C;
  float* sums;  // [2, kPart, kWarps, state_stride]: dB and dC of a part, by warp
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

// The sums of a part's tokens over the warps of a group, to global memory.
template <typename L>
__device__ inline void flush(const float* sums, const Groups& groups, const Thread<L>& at,
                             int64_t all_channels, int first_token, int steps, int d_state,
                             int state_stride, float* partial) {
  const int summed = summed_channels<L>(groups);
  const int64_t units = (all_channels + summed - 1) / summed;
  const int first_unit = at.first_of_block / summed;
  const int here = groups.slots == 1 ? 1 : at.channels / L::kWarpChannels;
  for (int i = threadIdx.x; i < steps * here * d_state; i += L::kThreads) {
    const int n = i % d_state, unit = i / d_state % here, k = i / d_state / here;
    const float* row = sums + k * L::kWarps * state_stride + n;
    float sum = row[unit * state_stride];
    if (groups.slots == 1) {
#pragma unroll
      for (int warp = 1; warp < L::kWarps; ++warp) sum += row[warp * state_stride];
    }
    partial[((first_token + k) * units + first_unit + unit) * d_state + n] = sum;
  }
}

template <typename T, typename L>
__global__ void __launch_bounds__(L::kThreads)
    backward(SelectiveScanCudaBackwardParams<T> b, Division division, Partial partial) {
  extern __shared__ float4 memory[];
  constexpr int kTile = L::kTile, kChannels = L::kChannels;
  const SelectiveScanCudaParams<T>& p = b.forward;
  const SharedMemory<L> shared(memory, division);
  const Thread<L> at(p.channels);
  const int document = blockIdx.y, begin = p.starts[document], end = p.starts[document + 1];
  const int d_state = static_cast<int>(p.d_state), state_stride = division.state_stride;
  const int64_t first = at.first_of_block;
  const bool first_lane = at.first_state == 0;

  float A[kChannels][kStates], dA[kChannels][kStates] = {}, dh[kChannels][kStates] = {};
  float h[kChannels][kStates], skip[kChannels], dD[kChannels] = {};
  float ddt_bias[kLeft<kChannels, 1, L::kLanes>] = {};
  // Of the thread's channels, the first whose sums over states it has in the end.
  const int which = [&] {
    float nothing[kChannels] = {};
    return scatter_sums<kChannels, 1, L::kLanes>(nothing, at.lane);
  }();
  load_A(p, at, A);
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    skip[c] = p.D && at.works() ? p.D[first + at.column + c] : 0.0f;
  }
  const float* B_rows = shared.B + at.slot(division.b) * kChunk * state_stride;
  const float* C_rows = shared.C + at.slot(division.c) * kChunk * state_stride;
  const auto load_step = [&](int k, float(&dt)[kChannels], float(&x)[kChannels]) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      dt[c] = shared.dt[k * kTile + at.column + c];
      x[c] = shared.x[k * kTile + at.column + c];
    }
  };
  const auto step_forward = [&](int k) {
    float dt[kChannels], x[kChannels];
    load_step(k, dt, x);
    advance(h, A, dt, x, states_at(B_rows + k * state_stride, at.first_state, state_stride));
  };

  const int chunks = (end - begin + kChunk - 1) / kChunk;
  for (int chunk = chunks - 1; chunk >= 0; --chunk) {
    const int t0 = begin + chunk * kChunk, steps = min(kChunk, end - t0);
    __syncthreads();
    const auto same = [](float v, int) { return v; };
    const auto biased = [&](float v, int c) {
      return v + (p.dt_bias ? p.dt_bias[first + c] : 0.0f);
    };
    const T* dt_rows = p.dt + t0 * p.dt_stride + first;
    stage_channels<L>(dt_rows, p.dt_stride, steps, at.channels, shared.dt,
                      [&](float v, int c) { return softplus_of(biased(v, c)); });
    stage_channels<L>(dt_rows, p.dt_stride, steps, at.channels, shared.sigmoid,
                      [&](float v, int c) { return sigmoid(biased(v, c)); });
    stage_channels<L>(p.x + t0 * p.x_stride + first, p.x_stride, steps, at.channels, shared.x,
                      same);
    stage_channels<L>(b.dy + t0 * p.channels + first, p.channels, steps, at.channels, shared.dy,
                      same);
    stage_states<L>(p.B + t0 * p.b_stride, p.b_stride, steps, d_state, state_stride, division.b,
                    at.first_of_block, at.channels, shared.B);
    stage_states<L>(p.C + t0 * p.c_stride, p.c_stride, steps, d_state, state_stride, division.c,
                    at.first_of_block, at.channels, shared.C);
    const int64_t checkpoint = first_checkpoint(p.starts, document) + chunk;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const float* place =
          p.checkpoints + (checkpoint * p.channels + first + at.column + c) * d_state;
#pragma unroll
      for (int i = 0; i < kStates; ++i) {
        const bool exists = at.works() && at.first_state + i < d_state;
        h[c][i] = exists ? place[at.first_state + i] : 0.0f;
      }
    }
    __syncthreads();

    const int parts = (steps + kPart - 1) / kPart;
    for (int part = 0; part < parts; ++part) {
      store_state<L>(h, shared.states, part);
      if (part == parts - 1) break;
      for (int k = part * kPart; k < (part + 1) * kPart; ++k) step_forward(k);
    }
    for (int part = parts - 1; part >= 0; --part) {
      const int part_begin = part * kPart, part_steps = min(kPart, steps - part_begin);
      load_state<L>(h, shared.states, part);
      for (int k = 0; k < part_steps; ++k) {
        store_state<L>(h, shared.states, kParts + k);
        step_forward(part_begin + k);
      }
      for (int k = part_steps - 1; k >= 0; --k) {
        const int row = part_begin + k;
        float before[kChannels][kStates], dt[kChannels], x[kChannels], dy[kChannels];
        load_state<L>(before, shared.states, kParts + k);
        load_step(row, dt, x);
        const float4 B4 = states_at(B_rows + row * state_stride, at.first_state, state_stride);
        const float4 C4 = states_at(C_rows + row * state_stride, at.first_state, state_stride);
        const float B[kStates] = {B4.x, B4.y, B4.z, B4.w}, C[kStates] = {C4.x, C4.y, C4.z, C4.w};
        // Sums over states: of dh B, and of the exponents' gradients times A; over channels: dB,
        // dC.
        float along_B[kChannels] = {}, along_A[kChannels] = {}, sums[2 * kStates] = {};
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          dy[c] = shared.dy[row * kTile + at.column + c];
          const float u = dt[c] * x[c];
#pragma unroll
          for (int i = 0; i < kStates; ++i) {
            const float decay = fast_exp2(dt[c] * A[c][i]);
            sums[kStates + i] += dy[c] * h[c][i];
            dh[c][i] += dy[c] * C[i];
            along_B[c] += dh[c][i] * B[i];
            sums[i] += dh[c][i] * u;
            dh[c][i] *= decay;
            const float exponent = dh[c][i] * before[c][i];
            dA[c][i] += exponent * dt[c];
            along_A[c] += exponent * A[c][i];
            h[c][i] = before[c][i];
          }
          dD[c] += dy[c] * x[c];
        }
        // Every lane of a channel has read its x and dy before any of them has these sums.
        scatter_sums<kChannels, 1, L::kLanes>(along_B, at.lane);
        scatter_sums<kChannels, 1, L::kLanes>(along_A, at.lane);
#pragma unroll
        for (int i = 0; i < kLeft<kChannels, 1, L::kLanes>; ++i) {
          float own_dt = 0, own_x = 0, own_dy = 0, own_skip = 0;
#pragma unroll
          for (int c = 0; c < kChannels; ++c) {
            if (c == which + i) own_dt = dt[c], own_x = x[c], own_dy = dy[c], own_skip = skip[c];
          }
          const int place = row * kTile + at.column + which + i;
          const float ddt = (kLn2 * along_A[i] + along_B[i] * own_x) * shared.sigmoid[place];
          ddt_bias[i] += ddt;
          shared.x[place] = along_B[i] * own_dt + own_skip * own_dy;
          shared.dy[place] = ddt;
        }
        const int sum = scatter_sums<2 * kStates, L::kLanes, 32>(sums, at.lane);
#pragma unroll
        for (int i = 0; i < kLeft<2 * kStates, L::kLanes, 32>; ++i) {
          const int n = at.first_state + (sum + i) % kStates, kind = (sum + i) / kStates;
          if (n < state_stride) {
            shared.sums[((kind * kPart + k) * L::kWarps + at.warp) * state_stride + n] = sums[i];
          }
        }
      }
      __syncthreads();
      flush<L>(shared.sums, division.b, at, p.channels, t0 + part_begin, part_steps, d_state,
               state_stride, partial.dB);
      flush<L>(shared.sums + kPart * L::kWarps * state_stride, division.c, at, p.channels,
               t0 + part_begin, part_steps, d_state, state_stride, partial.dC);
      __syncthreads();
    }
    for (int i = threadIdx.x; i < steps * kTile; i += L::kThreads) {
      const int c = i % kTile;
      if (c >= at.channels) continue;
      const int64_t place = (t0 + i / kTile) * p.channels + first + c;
      b.dx[place] = rounded<T>(shared.x[i]);
      b.ddt[place] = rounded<T>(shared.dy[i]);
    }
  }

  if (!at.works()) return;
  const int64_t channel = document * p.channels + first + at.column;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
#pragma unroll
    for (int i = 0; i < kStates; ++i) {
      const int n = at.first_state + i;
      if (n < d_state) partial.dA[(channel + c) * d_state + n] = dA[c][i];
    }
    if (partial.dD && first_lane) partial.dD[channel + c] = dD[c];
  }
  if (partial.ddt_bias) {
#pragma unroll
    for (int i = 0; i < kLeft<kChannels, 1, L::kLanes>; ++i) {
      partial.ddt_bias[channel + which + i] = ddt_bias[i];
    }
  }
}

constexpr int kSumThreads = 256;

// total[t, g, n] = sum of the group's units of partial[t, unit, n].
template <typename T>
__global__ void __launch_bounds__(kSumThreads)
    sum_units(const float* partial, int64_t count, int groups, int units_each, int d_state,
              T* total) {
  const int64_t i = int64_t{blockIdx.x} * kSumThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t row = i / d_state;  // token and group
  const float* first = partial + row * units_each * d_state + (i - row * d_state);
  float sum = 0;
#pragma unroll 8
  for (int unit = 0; unit < units_each; ++unit) sum += first[unit * d_state];
  total[i] = rounded<T>(sum);
}

template <typename T, typename L>
int64_t units_of(const SelectiveScanCudaParams<T>& p, const Groups& groups) {
  const int summed = summed_channels<L>(groups);
  return (p.channels + summed - 1) / summed;
}

// Floats of the partial sums; sets their places where there is memory.
template <typename T, typename L>
int64_t place_partial(const SelectiveScanCudaParams<T>& p, const Division& division, float* memory,
                      Partial& partial) {
  int64_t used = 0;
  const auto take = [&](int64_t count) {
    float* place = memory ? memory + used : nullptr;
    used += count;
    return place;
  };
  partial.dA = take(p.documents * p.channels * p.d_state);
  partial.ddt_bias = take(p.documents * p.channels);
  partial.dD = take(p.documents * p.channels);
  partial.dB = take(p.tokens * units_of<T, L>(p, division.b) * p.d_state);
  partial.dC = take(p.tokens * units_of<T, L>(p, division.c) * p.d_state);
  return used;
}

template <typename T, typename L>
void sum_groups(const SelectiveScanCudaParams<T>& p, const Groups& groups, int64_t n_groups,
                const float* partial, T* total, CudaStream stream) {
  const int64_t count = p.tokens * n_groups * p.d_state;
  const auto blocks = static_cast<unsigned>((count + kSumThreads - 1) / kSumThreads);
  sum_units<T><<<blocks, kSumThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      partial, count, static_cast<int>(n_groups),
      static_cast<int>(units_of<T, L>(p, groups) / n_groups), static_cast<int>(p.d_state), total);
  check_cuda(cudaGetLastError());
}

}  // namespace

template <typename T>
void selective_scan_backward_cuda(const SelectiveScanCudaBackwardParams<T>& b, void* scratch,
                                  CudaStream stream) {
  const SelectiveScanCudaParams<T>& p = b.forward;
  check(p);
  with_layout(p, [&]<typename L>() {
    const Division division = division_of<L>(p);
    Partial partial{};
    place_partial<T, L>(p, division, static_cast<float*>(scratch), partial);
    if (p.tokens > 0) {
      const dim3 grid(static_cast<unsigned>((p.channels + L::kTile - 1) / L::kTile),
                      static_cast<unsigned>(p.documents));
      start(backward<T, L>, grid, L::kThreads, SharedMemory<L>::floats(division), stream, b,
            division, partial);
      sum_groups<T, L>(p, division.b, p.b_groups, partial.dB, b.dB, stream);
      sum_groups<T, L>(p, division.c, p.c_groups, partial.dC, b.dC, stream);
    }
    const auto sum = [&](const float* parts, int64_t columns, float* total) {
      sum_parts_cuda({.partial = parts,
                      .parts = p.tokens > 0 ? p.documents : 0,
                      .stride = columns,
                      .columns = columns,
                      .total = total},
                     stream);
    };
    sum(partial.dA, p.channels * p.d_state, b.dA);
    if (b.ddt_bias) sum(partial.ddt_bias, p.channels, b.ddt_bias);
    if (b.dD) sum(partial.dD, p.channels, b.dD);
  });
}

template <typename T>
int64_t selective_scan_backward_scratch_bytes(const SelectiveScanCudaParams<T>& p) {
  int64_t floats = 0;
  with_layout(p, [&]<typename L>() {
    Partial partial{};
    floats = place_partial<T, L>(p, division_of<L>(p), nullptr, partial);
  });
  return floats * static_cast<int64_t>(sizeof(float));
}

template void selective_scan_backward_cuda(const SelectiveScanCudaBackwardParams<float>&, void*,
                                           CudaStream);
template void selective_scan_backward_cuda(const SelectiveScanCudaBackwardParams<Bf16>&, void*,
                                           CudaStream);
template int64_t selective_scan_backward_scratch_bytes(const SelectiveScanCudaParams<float>&);
template int64_t selective_scan_backward_scratch_bytes(const SelectiveScanCudaParams<Bf16>&);

}  // namespace mambify::kernels
