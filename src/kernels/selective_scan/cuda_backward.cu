#include "kernels/cuda/sum_parts.h"
#include "kernels/selective_scan/cuda_sums.cuh"

// Chunks are walked from the last to the first, each from the state that the forward pass left in
// front of it. Within a chunk, states are computed again twice: up to the beginnings of its parts,
// which shared memory holds, and then, part by part from the last, up to every token.

namespace mambify::kernels {

using namespace scan;

namespace {

using Layout16 = Layout<4, 2, 4>;
using Layout64 = Layout<16, 2, 8>;
constexpr float kLn2 = 0.693147181f;

// What documents and blocks add up on their own, before the sums over them.
struct Partial {
  float* dA;        // [documents, channels, d_state]
  float* ddt_bias;  // [documents, channels]; null: not wanted, as below
  float* dD;        // [documents, channels]
  float *dB, *dC;   // of blocks: [tokens, sums_of_token, kWidth]
};

template <typename L>
struct SharedMemory {
  static constexpr int kTileFloats = kChunk * L::kTile;
  static constexpr int kStateVectors = (kParts - 1) * L::kChannels * L::kThreads;
  static constexpr int kSumsFloats = kPart * L::kWarps * L::kWidth;

  static constexpr int floats(int slots) {
    return 3 * kTileFloats + 4 * kStateVectors + slots * kChunk * L::kWidth + 2 * kSumsFloats;
  }
  // A multiprocessor has 228 KB, of which a block takes one more than it asks for.
  static constexpr int kBlocks = 228 * 1024 / (4 * floats(/*slots=*/2) + 1024);

  __device__ SharedMemory(float4* memory, const Division& division)
      : states(memory),
        dt(reinterpret_cast<float*>(memory + kStateVectors)),
        u(dt + kTileFloats),
        dy(u + kTileFloats),
        B(dy + kTileFloats),
        C(B + division.b.slots * kChunk * L::kWidth),
        sums(C + division.c.slots * kChunk * L::kWidth) {}

  float4* states;  // [kParts - 1, kChannels, kThreads]: each thread's own, before parts 1 and on
  float *dt, *u, *dy;
  float *B, *C;
  float* sums;  // [2, kPart, kWarps, kWidth]: dB and dC of a part, by warp
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
template <typename L, typename T>
__device__ inline void stage_inputs(const SelectiveScanCudaParams<T>& p, const Rows<T>& rows,
                                    const SharedMemory<L>& shared, const Thread<L>& at, int steps,
                                    bool in_one) {
  each_four<L>(steps, at.channels, [&](int k, int c, int count) {
    const Elements<4> x = load_four(rows.x + k * rows.x_stride + c, count, in_one),
                      dy = load_four(rows.dy + k * rows.stride + c, count, in_one),
                      dt = steps_of(p, rows.dt + k * rows.dt_stride + c, at.first_of_block + c,
                                    count, in_one);
    Elements<4> u;
#pragma unroll
    for (int i = 0; i < 4; ++i) u[i] = dt[i] * x[i];
    store_elements(dt, shared.dt + k * L::kTile + c);
    store_elements(u, shared.u + k * L::kTile + c);
    store_elements(dy, shared.dy + k * L::kTile + c);
  });
}

// Sums over a chunk's tokens, of the channels that each_four gives the thread.
struct ChannelSums {
  Elements<4> ddt_bias{}, dD{};
};

// dx and ddt of a chunk, from the sums over states that have taken the places of u and dy.
template <typename L, typename T>
__device__ inline void write_input_gradients(const SelectiveScanCudaParams<T>& p,
                                             const Rows<T>& rows, const SharedMemory<L>& shared,
                                             const Thread<L>& at, int steps, bool in_one,
                                             ChannelSums& sums) {
  each_four<L>(steps, at.channels, [&](int k, int c, int count) {
    const Elements<4> x = load_four(rows.x + k * rows.x_stride + c, count, in_one),
                      dy = load_four(rows.dy + k * rows.stride + c, count, in_one),
                      raw = load_four(rows.dt + k * rows.dt_stride + c, count, in_one),
                      dt = load_elements<4>(shared.dt + k * L::kTile + c),
                      along_B = load_elements<4>(shared.u + k * L::kTile + c),
                      along_A = load_elements<4>(shared.dy + k * L::kTile + c);
    Elements<4> dx{}, ddt{};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i >= count) continue;
      const int channel = at.first_of_block + c + i;
      const float bias = p.dt_bias ? p.dt_bias[channel] : 0.0f, skip = p.D ? p.D[channel] : 0.0f;
      dx[i] = along_B[i] * dt[i] + skip * dy[i];
      // softplus' is the sigmoid.
      ddt[i] = (kLn2 * along_A[i] + along_B[i] * x[i]) * sigmoid(raw[i] + bias);
      sums.ddt_bias[i] += ddt[i];
      sums.dD[i] += dy[i] * x[i];
    }
    store_four(dx, rows.dx + k * rows.stride + c, count, in_one);
    store_four(ddt, rows.ddt + k * rows.stride + c, count, in_one);
  });
}

// A block's ddt_bias and dD: threads that have the same channels meet in shared memory.
template <typename L>
__device__ inline void write_channel_sums(const ChannelSums& sums, const Thread<L>& at,
                                          float* memory, float* ddt_bias, float* dD) {
  // Each [kThreads / (kTile / 4), kTile].
  float *all_ddt_bias = memory, *all_dD = memory + 4 * L::kThreads;
  __syncthreads();
  store_elements(sums.ddt_bias, all_ddt_bias + threadIdx.x * 4);
  store_elements(sums.dD, all_dD + threadIdx.x * 4);
  __syncthreads();
  for (int c = threadIdx.x; c < at.channels; c += L::kThreads) {
    float of_bias = 0, of_D = 0;
    for (int i = c; i < 4 * L::kThreads; i += L::kTile) {
      of_bias += all_ddt_bias[i];
      of_D += all_dD[i];
    }
    ddt_bias[c] = of_bias;
    dD[c] = of_D;
  }
}

template <typename T, typename L>
__global__ void __launch_bounds__(L::kThreads, SharedMemory<L>::kBlocks)
    backward(SelectiveScanCudaBackwardParams<T> b, Division division, Partial partial) {
  extern __shared__ float4 memory[];
  constexpr int kTile = L::kTile, kChannels = L::kChannels;
  constexpr int kAlong = kPart * kChannels;  // sums over states of a part
  const SelectiveScanCudaParams<T>& p = b.forward;
  const SharedMemory<L> shared(memory, division);
  const Thread<L> at(p.channels);
  const int document = blockIdx.y, begin = p.starts[document], end = p.starts[document + 1];
  const auto d_state = static_cast<int>(p.d_state);
  const int64_t first = at.first_of_block;

  float A[kChannels][kStates], dA[kChannels][kStates] = {}, dh[kChannels][kStates] = {};
  float h[kChannels][kStates];
  ChannelSums channel_sums;
  load_A(p, at, A);
  const float* B_rows = shared.B + at.slot(division.b) * kChunk * L::kWidth + at.first_state;
  const float* C_rows = shared.C + at.slot(division.c) * kChunk * L::kWidth + at.first_state;
  const BlockSums<L> dB_total(partial.dB, division.b, at, p.channels),
      dC_total(partial.dC, division.c, at, p.channels);
  const auto load_checkpoint = [&](int chunk) {
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
  };
  const auto load_channels = [&](const float* tile, int row, float(&to)[kChannels]) {
    load_floats(tile + row * kTile + at.column, to);
  };

  const int chunks = (end - begin + kChunk - 1) / kChunk;
  for (int chunk = chunks - 1; chunk >= 0; --chunk) {
    const int t0 = begin + chunk * kChunk, steps = min(kChunk, end - t0);
    load_checkpoint(chunk);
    __syncthreads();
    const Rows<T> rows(b, t0, first);
    stage_inputs(p, rows, shared, at, steps, division.channels_in_fours);
    stage_states<L>(p.B + t0 * p.b_stride, static_cast<int>(p.b_stride), steps, d_state, division.b,
                    at.first_of_block, at.channels, division.states_in_fours, shared.B);
    stage_states<L>(p.C + t0 * p.c_stride, static_cast<int>(p.c_stride), steps, d_state, division.c,
                    at.first_of_block, at.channels, division.states_in_fours, shared.C);
    __syncthreads();

    const int parts = (steps + kPart - 1) / kPart;
    for (int part = 0; part < parts - 1; ++part) {
#pragma unroll
      for (int k = 0; k < kPart; ++k) {
        float dt[kChannels], u[kChannels], B[kStates];
        load_channels(shared.dt, part * kPart + k, dt);
        load_channels(shared.u, part * kPart + k, u);
        load_floats(B_rows + (part * kPart + k) * L::kWidth, B);
        advance(h, A, dt, u, B);
      }
      store_state<L>(h, shared.states, part);
    }
    for (int part = parts - 1; part >= 0; --part) {
      const int begin_part = part * kPart;
      float *dB_sums = shared.sums, *dC_sums = shared.sums + SharedMemory<L>::kSumsFloats;
      if (part > 0) {
        load_state<L>(h, shared.states, part - 1);
      } else {
        load_checkpoint(chunk);
      }
      // Of each token, the factors of the states before it and what they leave of them.
      float decay[kPart][kChannels][kStates];
      float kept[kPart][kChannels][kStates];
#pragma unroll
      for (int k = 0; k < kPart; ++k) {
        float dt[kChannels], u[kChannels], dy[kChannels], B[kStates], dC[kStates] = {};
        load_channels(shared.dt, begin_part + k, dt);
        load_channels(shared.u, begin_part + k, u);
        load_channels(shared.dy, begin_part + k, dy);
        load_floats(B_rows + (begin_part + k) * L::kWidth, B);
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
#pragma unroll
          for (int i = 0; i < kStates; ++i) {
            decay[k][c][i] = fast_exp2(dt[c] * A[c][i]);
            kept[k][c][i] = decay[k][c][i] * h[c][i];
            h[c][i] = kept[k][c][i] + u[c] * B[i];
            dC[i] += dy[c] * h[c][i];
          }
        }
        store_warp_sum(dC, at, dC_sums + (k * L::kWarps + at.warp) * L::kWidth);
      }
      // Sums over states: of dh B, and of the exponents' gradients times A.
      float along_B[kAlong] = {}, along_A[kAlong] = {};
#pragma unroll
      for (int k = kPart - 1; k >= 0; --k) {
        float dt[kChannels], u[kChannels], dy[kChannels], B[kStates], C[kStates];
        float dB[kStates] = {};
        load_channels(shared.dt, begin_part + k, dt);
        load_channels(shared.u, begin_part + k, u);
        load_channels(shared.dy, begin_part + k, dy);
        load_floats(B_rows + (begin_part + k) * L::kWidth, B);
        load_floats(C_rows + (begin_part + k) * L::kWidth, C);
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
#pragma unroll
          for (int i = 0; i < kStates; ++i) {
            dh[c][i] += dy[c] * C[i];
            along_B[k * kChannels + c] += dh[c][i] * B[i];
            dB[i] += dh[c][i] * u[c];
            const float exponent = dh[c][i] * kept[k][c][i];
            dA[c][i] += exponent * dt[c];
            along_A[k * kChannels + c] += exponent * A[c][i];
            dh[c][i] *= decay[k][c][i];
          }
        }
        store_warp_sum(dB, at, dB_sums + (k * L::kWarps + at.warp) * L::kWidth);
      }
      const int which = scatter_sums<kAlong, 1, L::kLanes>(along_B, at.lane);
      scatter_sums<kAlong, 1, L::kLanes>(along_A, at.lane);
      __syncwarp();  // all lanes of a channel have read what some of them overwrite
#pragma unroll
      for (int i = 0; i < kLeft<kAlong, 1, L::kLanes>; ++i) {
        const int place =
            (begin_part + (which + i) / kChannels) * kTile + at.column + (which + i) % kChannels;
        shared.u[place] = along_B[i];
        shared.dy[place] = along_A[i];
      }
      __syncthreads();
      const int part_steps = min(kPart, steps - begin_part);
      dB_total.write(dB_sums, t0 + begin_part, part_steps, threadIdx.x);
      // Threads that had none of the above.
      dC_total.write(dC_sums, t0 + begin_part, part_steps, threadIdx.x ^ (L::kThreads / 2));
      __syncthreads();
    }

    write_input_gradients(p, rows, shared, at, steps, division.channels_in_fours, channel_sums);
  }

  const int64_t channel = document * p.channels + first;
  if (at.works()) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
#pragma unroll
      for (int i = 0; i < kStates; ++i) {
        const int n = at.first_state + i;
        if (n < d_state) partial.dA[(channel + at.column + c) * d_state + n] = dA[c][i];
      }
    }
  }
  write_channel_sums(channel_sums, at, reinterpret_cast<float*>(memory), partial.ddt_bias + channel,
                     partial.dD + channel);
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
  partial.dB = take(p.tokens * sums_of_token<L>(p.channels, division.b) * L::kWidth);
  partial.dC = take(p.tokens * sums_of_token<L>(p.channels, division.c) * L::kWidth);
  partial.dA = take(p.documents * p.channels * p.d_state);
  partial.ddt_bias = take(p.documents * p.channels);
  partial.dD = take(p.documents * p.channels);
  return used;
}

}  // namespace

template <typename T>
void selective_scan_backward_cuda(const SelectiveScanCudaBackwardParams<T>& b, void* scratch,
                                  CudaStream stream) {
  const SelectiveScanCudaParams<T>& p = b.forward;
  check(p);
  with_layout<Layout16, Layout64>(p, [&]<typename L>() {
    Division division = division_of<L>(p);
    division.channels_in_fours = division.channels_in_fours && in_vectors(b.dy, p.channels, 4) &&
                                 in_vectors(b.dx, p.channels, 4) &&
                                 in_vectors(b.ddt, p.channels, 4);
    Partial partial{};
    place_partial<T, L>(p, division, static_cast<float*>(scratch), partial);
    if (p.tokens > 0) {
      const dim3 grid(static_cast<unsigned>((p.channels + L::kTile - 1) / L::kTile),
                      static_cast<unsigned>(p.documents));
      start(backward<T, L>, grid, L::kThreads,
            SharedMemory<L>::floats(division.b.slots + division.c.slots), stream, b, division,
            partial);
      sum_groups<L>(p, division.b, p.b_groups, partial.dB, b.dB, stream);
      sum_groups<L>(p, division.c, p.c_groups, partial.dC, b.dC, stream);
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
  with_layout<Layout16, Layout64>(p, [&]<typename L>() {
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
