#include "kernels/selective_scan/cuda.cuh"

namespace mambify::kernels {

using namespace scan;

namespace {

template <typename T, typename L>
__global__ void __launch_bounds__(L::kThreads)
    forward(SelectiveScanCudaParams<T> p, Division division) {
  extern __shared__ float4 memory[];
  constexpr int kTile = L::kTile, kChannels = L::kChannels;
  float* dt_tile = reinterpret_cast<float*>(memory);
  float* x_tile = dt_tile + kChunk * kTile;  // y takes its place
  float* B_tile = x_tile + kChunk * kTile;
  float* C_tile = B_tile + division.b.slots * kChunk * division.state_stride;
  const Thread<L> at(p.channels);
  const int document = blockIdx.y, begin = p.starts[document], end = p.starts[document + 1];
  const int d_state = static_cast<int>(p.d_state), state_stride = division.state_stride;
  const int64_t first = at.first_of_block;

  float A[kChannels][kStates], h[kChannels][kStates] = {}, skip[kChannels];
  load_A(p, at, A);
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    // One of a channel's lanes adds it.
    const bool adds = p.D && at.works() && at.first_state == 0;
    skip[c] = adds ? p.D[first + at.column + c] : 0.0f;
  }
  int64_t checkpoint = first_checkpoint(p.starts, document);
  for (int t0 = begin; t0 < end; t0 += kChunk, ++checkpoint) {
    const int steps = min(kChunk, end - t0);
    __syncthreads();
    stage_channels<L>(
        p.dt + t0 * p.dt_stride + first, p.dt_stride, steps, at.channels, dt_tile,
        [&](float v, int c) { return softplus_of(v + (p.dt_bias ? p.dt_bias[first + c] : 0.0f)); });
    stage_channels<L>(p.x + t0 * p.x_stride + first, p.x_stride, steps, at.channels, x_tile,
                      [](float v, int) { return v; });
    stage_states<L>(p.B + t0 * p.b_stride, p.b_stride, steps, d_state, state_stride, division.b,
                    at.first_of_block, at.channels, B_tile);
    stage_states<L>(p.C + t0 * p.c_stride, p.c_stride, steps, d_state, state_stride, division.c,
                    at.first_of_block, at.channels, C_tile);
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
    const float* B_row = B_tile + at.slot(division.b) * kChunk * state_stride;
    const float* C_row = C_tile + at.slot(division.c) * kChunk * state_stride;
    for (int k = 0; k < steps; ++k, B_row += state_stride, C_row += state_stride) {
      const float4 B = states_at(B_row, at.first_state, state_stride);
      const float4 C = states_at(C_row, at.first_state, state_stride);
      float dt[kChannels], x[kChannels], y[kChannels];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        dt[c] = dt_tile[k * kTile + at.column + c];
        x[c] = x_tile[k * kTile + at.column + c];
      }
      advance(h, A, dt, x, B);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        y[c] = skip[c] * x[c] + h[c][0] * C.x + h[c][1] * C.y + h[c][2] * C.z + h[c][3] * C.w;
      }
      // Every lane of a channel has read its x before any of them has the sum.
      const int which = scatter_sums<kChannels, 1, L::kLanes>(y, at.lane);
#pragma unroll
      for (int i = 0; i < kLeft<kChannels, 1, L::kLanes>; ++i) {
        x_tile[k * kTile + at.column + which + i] = y[i];
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < steps * kTile; i += L::kThreads) {
      const int c = i % kTile;
      if (c < at.channels) p.y[(t0 + i / kTile) * p.channels + first + c] = rounded<T>(x_tile[i]);
    }
  }
}

}  // namespace

template <typename T>
void selective_scan_forward_cuda(const SelectiveScanCudaParams<T>& p, CudaStream stream) {
  check(p);
  if (p.tokens == 0) return;
  with_layout(p, [&]<typename L>() {
    const Division division = division_of<L>(p);
    const int64_t floats =
        kChunk * (2 * L::kTile + (division.b.slots + division.c.slots) * division.state_stride);
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
