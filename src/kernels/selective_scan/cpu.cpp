#include <algorithm>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/lanes.h"
#include "kernels/math.h"
#include "kernels/parallel.h"
#include "kernels/selective_scan/cpu_slabs.h"

namespace mambify::kernels {

using namespace selective_scan_cpu;

namespace {

using Params = SelectiveScanParams<float>;

// h: [width, d_state], the state, advanced in place. kState fixes d_state at compile time; 0: any.
template <int kState>
MAMBIFY_INLINE void forward_chunk(const Params& p, const Work& w, int64_t begin, int64_t steps,
                                  const ChunkInputs& in, float* h) {
  const int64_t N = kState ? kState : p.d_state;
  const float* B0 = p.B + begin * p.b_stride + w.first / (p.channels / p.b_groups) * N;
  const float* C0 = p.C + begin * p.c_stride + w.first / (p.channels / p.c_groups) * N;
  for (int64_t i = 0; i < w.width; ++i) {
    const float* __restrict A = p.A + (w.first + i) * N;
    float* __restrict state = h + i * N;
    const float skip = p.D ? p.D[w.first + i] : 0.0f;
    for (int64_t k = 0; k < steps; ++k) {
      const float* __restrict B = B0 + k * p.b_stride;
      const float* __restrict C = C0 + k * p.c_stride;
      const float dt = in.dt[k * kSlab + i], u = in.u[k * kSlab + i];
      alignas(64) float sums[kLanes] = {};
      for (int64_t n0 = 0; n0 < N; n0 += kLanes) {
        const int64_t width = kState ? kLanes : std::min(kLanes, N - n0);
#pragma omp simd
        for (int64_t lane = 0; lane < width; ++lane) {
          const int64_t n = n0 + lane;
          const float next = fast_exp(dt * A[n]) * state[n] + u * B[n];
          state[n] = next;
          sums[lane] += next * C[n];
        }
      }
      const float x = p.x[(begin + k) * p.x_stride + w.first + i];
      p.y[(begin + k) * p.channels + w.first + i] = sum_lanes(sums) + skip * x;
    }
  }
}

MAMBIFY_INLINE void take_final_state(const Params& p, const Work& w, const float* h) {
  if (!p.final_state) return;
  std::copy_n(h, w.width * p.d_state,
              p.final_state + (w.document * p.channels + w.first) * p.d_state);
}

template <int kState>
MAMBIFY_INLINE void forward_slab_of(const Params& p, const Work& w, float* h) {
  const int64_t N = kState ? kState : p.d_state;
  const int64_t begin = p.starts[w.document], end = p.starts[w.document + 1];
  ChunkInputs in;
  if (w.keep == begin) take_final_state(p, w, h);
  for (int64_t t = begin, steps = 0; t < end; t += steps) {
    steps = std::min(kChunk, end - t);
    if (t < w.keep) steps = std::min(steps, w.keep - t);
    if (p.checkpoints) {
      const int64_t c = w.checkpoint + (t - begin) / kChunk;
      std::copy_n(h, w.width * N, p.checkpoints + (c * p.channels + w.first) * N);
    }
    load_chunk(p, w, t, steps, in);
    forward_chunk<kState>(p, w, t, steps, in, h);
    if (t + steps == w.keep) take_final_state(p, w, h);
  }
}

MAMBIFY_CLONES
void forward_slab(const Params& p, const Work& w) {
  const int64_t N = p.d_state, size = w.width * N;
  const AlignedFloats h(size);
  if (w.initial) {
    std::copy_n(w.initial, size, h.data());
  } else {
    std::fill_n(h.data(), size, 0.0f);
  }
  switch (N) {
    case 16:
      forward_slab_of<16>(p, w, h.data());
      break;
    case 32:
      forward_slab_of<32>(p, w, h.data());
      break;
    case 64:
      forward_slab_of<64>(p, w, h.data());
      break;
    case 128:
      forward_slab_of<128>(p, w, h.data());
      break;
    default:
      forward_slab_of<0>(p, w, h.data());
  }
}

}  // namespace

void selective_scan_forward_cpu(const Params& p) {
  const Slabs slabs(p);
  const std::vector<int64_t> offsets = checkpoint_offsets(p.starts, p.documents);
  parallel_tasks(p.documents * slabs.count, operations_of(p), [&](int64_t task) {
    const int64_t document = task / slabs.count;
    forward_slab(p, make_work(p, slabs, document, task % slabs.count, offsets[document]));
  });
}

}  // namespace mambify::kernels
