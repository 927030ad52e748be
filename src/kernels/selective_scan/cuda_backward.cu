#include "kernels/cuda/sum_parts.h"
#include "kernels/selective_scan/cuda_chunk.cuh"
#include "kernels/selective_scan/cuda_sums.cuh"

// Chunks are walked from the last to the first, each from the state that the forward pass left in
// front of it. Within a chunk, states are computed again twice: up to the beginnings of its parts,
// which shared memory holds, and then, part by part from the last, up to every token.

namespace mambify::kernels {

using namespace scan;

namespace {

using Layout16 = Layout<4, 2, 4>;
using Layout64 = Layout<16, 2, 8>;

// What documents and blocks add up on their own, before the sums over them.
struct Partial {
  float* dA;        // [documents, channels, d_state]
  float* ddt_bias;  // [documents, channels]; null: not wanted, as below
  float* dD;        // [documents, channels]
  float *dB, *dC;   // of blocks: [tokens, sums_of_token, kWidth]
};

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
  float ddt_bias = 0, dD = 0;  // of the block's channel with the thread's number
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

  const int chunks = (end - begin + kChunk - 1) / kChunk;
  for (int chunk = chunks - 1; chunk >= 0; --chunk) {
    const int t0 = begin + chunk * kChunk, steps = min(kChunk, end - t0);
    load_checkpoint(chunk);
    __syncthreads();
    const Rows<T> rows(b, t0, first);
    const bool whole = division.in_fours && steps == kChunk && at.channels == kTile;
    if (whole) {
      stage<true>(p, division, rows, shared, at, t0, steps);
    } else {
      stage<false>(p, division, rows, shared, at, t0, steps);
    }
    __syncthreads();

    if (chunk > 0) {
      prefetch(b, division, at, t0 - kChunk, first_checkpoint(p.starts, document) + chunk - 1);
    }

    const int parts = (steps + kPart - 1) / kPart;
    for (int part = 0; part < parts - 1; ++part) {
#pragma unroll
      for (int k = 0; k < kPart; ++k) {
        float dt[kChannels], u[kChannels], B[kStates];
        shared.steps.load(part * kPart + k, at.column, dt, u);
        load_floats(B_rows + (part * kPart + k) * L::kWidth, B);
        advance(h, A, dt, u, B);
      }
      store_state<L>(h, shared.states, part);
    }
    for (int part = parts - 1; part >= 0; --part) {
      const int begin_part = part * kPart;
      const int part_steps = min(kPart, steps - begin_part);
      if (part > 0) {
        load_state<L>(h, shared.states, part - 1);
      } else {
        load_checkpoint(chunk);
      }
      // Of each token, the factors of the states before it and what they leave of them.
      float decay[kPart][kChannels][kStates], kept[kPart][kChannels][kStates];
#pragma unroll
      for (int k = 0; k < kPart; ++k) {
        float dt[kChannels], u[kChannels], dy[kChannels], B[kStates], dC[kStates] = {};
        shared.steps.load(begin_part + k, at.column, dt, u);
        load_floats(shared.dy + (begin_part + k) * kTile + at.column, dy);
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
        store_warp_sum(dC, at, shared.dC + (k * L::kWarps + at.warp) * L::kWidth);
      }
      // Some warps add up dC while others go on, and dB during the next part.
      __syncthreads();
      dC_total.write(shared.dC, t0 + begin_part, part_steps, threadIdx.x ^ (L::kThreads / 2));
      // Sums over states: of dh B, and of the exponents' gradients times A.
      float along_B[kAlong] = {}, along_A[kAlong] = {};
#pragma unroll
      for (int k = kPart - 1; k >= 0; --k) {
        float dt[kChannels], u[kChannels], dy[kChannels], B[kStates], C[kStates];
        float dB[kStates] = {};
        shared.steps.load(begin_part + k, at.column, dt, u);
        load_floats(shared.dy + (begin_part + k) * kTile + at.column, dy);
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
        store_warp_sum(dB, at, shared.dB + (k * L::kWarps + at.warp) * L::kWidth);
      }
      const int which = scatter_sums<kAlong, 1, L::kLanes>(along_B, at.lane);
      scatter_sums<kAlong, 1, L::kLanes>(along_A, at.lane);
      __syncwarp();  // all lanes of a channel have read what some of them overwrite
#pragma unroll
      for (int i = 0; i < kLeft<kAlong, 1, L::kLanes>; ++i) {
        const int k = begin_part + (which + i) / kChannels, c = at.column + (which + i) % kChannels;
        shared.steps.place(k, c)[kChannels] = along_B[i];
        shared.dy[k * kTile + c] = along_A[i];
      }
      __syncthreads();
      dB_total.write(shared.dB, t0 + begin_part, part_steps, threadIdx.x);
    }

    if (whole) {
      finish<true>(p, rows, shared, at, steps, ddt_bias, dD);
    } else {
      finish<false>(p, rows, shared, at, steps, ddt_bias, dD);
    }
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
  if (threadIdx.x < at.channels) {
    partial.ddt_bias[channel + threadIdx.x] = ddt_bias;
    partial.dD[channel + threadIdx.x] = dD;
  }
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
    division.in_fours = division.in_fours && in_vectors(b.dy, p.channels, 4) &&
                        in_vectors(b.dx, p.channels, 4) && in_vectors(b.ddt, p.channels, 4);
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
