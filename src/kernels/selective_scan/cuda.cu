#include "kernels/selective_scan/cuda.cuh"

namespace mambify::kernels {

using namespace scan;

namespace {

template <typename T, typename L>
__global__ void __launch_bounds__(L::kThreads)
    forward(SelectiveScanCudaParams<T> p, Division division) {
  extern __shared__ float4 memory[];
  constexpr int kTile = L::kTile, kChannels = L::kChannels, kSums = kPart * kChannels;
  const StepTile<L> step_tile{reinterpret_cast<float*>(memory)};
  float* skip_tile = step_tile.data + StepTile<L>::kFloats;  // D x
  float* B_tile = skip_tile + kChunk * kTile;
  float* C_tile = B_tile + division.b.slots * kChunk * L::kWidth;
  const Thread<L> at(p.channels);
  const int document = blockIdx.y, begin = p.starts[document], end = p.starts[document + 1];
  const auto d_state = static_cast<int>(p.d_state);
  // Within a chunk, addresses need no more than 32 bits.
  const auto x_stride = static_cast<int>(p.x_stride), dt_stride = static_cast<int>(p.dt_stride),
             b_stride = static_cast<int>(p.b_stride), c_stride = static_cast<int>(p.c_stride);
  const int64_t first = at.first_of_block;
  const float* B_rows = B_tile + at.slot(division.b) * kChunk * L::kWidth + at.first_state;
  const float* C_rows = C_tile + at.slot(division.c) * kChunk * L::kWidth + at.first_state;

  float A[kChannels][kStates], h[kChannels][kStates] = {};
  load_A(p, at, A);
  int64_t checkpoint = first_checkpoint(p.starts, document);
  for (int t0 = begin; t0 < end; t0 += kChunk, ++checkpoint) {
    const int steps = min(kChunk, end - t0);
    const T* x_rows = p.x + t0 * p.x_stride + first;
    const T* dt_rows = p.dt + t0 * p.dt_stride + first;
    __syncthreads();
    const auto stage = [&]<bool kWhole>() {
      each_four<kWhole, L::kThreads, kTile>(steps, at.channels, [&](int k, int c, int count) {
        const Elements<4> x = load_four<kWhole>(x_rows + k * x_stride + c, count),
                          raw = load_four<kWhole>(dt_rows + k * dt_stride + c, count),
                          dt = steps_of(raw, load_parameters(p.dt_bias, first + c, count), count),
                          D = load_parameters(p.D, first + c, count);
        Elements<4> u, skipped;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          u[i] = dt[i] * x[i];
          skipped[i] = D[i] * x[i];
        }
        step_tile.store_four(k, c, dt, u);
        store_elements(skipped, skip_tile + k * kTile + c);
      });
      stage_states<kWhole>(p.B + t0 * p.b_stride, b_stride, steps, d_state, division.b, at, B_tile);
      stage_states<kWhole>(p.C + t0 * p.c_stride, c_stride, steps, d_state, division.c, at, C_tile);
    };
    if (division.in_fours && steps == kChunk && at.channels == kTile) {
      stage.template operator()<true>();
    } else {
      stage.template operator()<false>();
    }
    if (p.checkpoints && at.works()) {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        float* place = p.checkpoints + (checkpoint * p.channels + first + at.column + c) * d_state;
#pragma unroll
        for (int i = 0; i < kStates; ++i) {
          if (at.first_state + i < d_state) place[at.first_state + i] = h[c][i];
        }
      }
    }
    __syncthreads();
    for (int part = 0; part < steps; part += kPart) {
      float y[kSums];
#pragma unroll
      for (int k = 0; k < kPart; ++k) {
        float dt[kChannels], u[kChannels], B[kStates], C[kStates];
        step_tile.load(part + k, at.column, dt, u);
        load_floats(B_rows + (part + k) * L::kWidth, B);
        load_floats(C_rows + (part + k) * L::kWidth, C);
        advance(h, A, dt, u, B);
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          y[k * kChannels + c] = h[c][0] * C[0] + h[c][1] * C[1] + h[c][2] * C[2] + h[c][3] * C[3];
        }
      }
      const int which = scatter_sums<kSums, 1, L::kLanes>(y, at.lane);
#pragma unroll
      for (int i = 0; i < kLeft<kSums, 1, L::kLanes>; ++i) {
        const int k = part + (which + i) / kChannels, c = at.column + (which + i) % kChannels;
        if (k < steps && at.works()) {
          p.y[(t0 + k) * p.channels + first + c] = rounded<T>(y[i] + skip_tile[k * kTile + c]);
        }
      }
    }
  }
}

}  // namespace

template <typename T>
void selective_scan_forward_cuda(const SelectiveScanCudaParams<T>& p, CudaStream stream) {
  check(p);
  if (p.tokens == 0) return;
  with_layout<Layout<4, 2, 4>, Layout<16, 4, 4>>(p, [&]<typename L>() {
    const Division division = division_of<L>(p);
    const int64_t floats =
        kChunk * (3 * L::kTile + (division.b.slots + division.c.slots) * L::kWidth);
    const dim3 grid(static_cast<unsigned>((p.channels + L::kTile - 1) / L::kTile),
                    static_cast<unsigned>(p.documents));
    start(forward<T, L>, grid, L::kThreads, floats, stream, p, division);
  });
}

template <typename T>
int64_t selective_scan_checkpoint_bytes(const SelectiveScanCudaParams<T>& p) {
  return most_checkpoints(p.tokens, p.documents) * p.channels * p.d_state *
         static_cast<int64_t>(sizeof(float));
}

template void selective_scan_forward_cuda(const SelectiveScanCudaParams<float>&, CudaStream);
template void selective_scan_forward_cuda(const SelectiveScanCudaParams<Bf16>&, CudaStream);
template int64_t selective_scan_checkpoint_bytes(const SelectiveScanCudaParams<float>&);
template int64_t selective_scan_checkpoint_bytes(const SelectiveScanCudaParams<Bf16>&);

}  // namespace mambify::kernels
