#include <algorithm>
#include <vector>

#include "kernels/lanes.h"
#include "kernels/math.h"
#include "kernels/parallel.h"
#include "kernels/ssd/cpu_blocks.h"

namespace mambify::kernels {

using namespace ssd_cpu;

namespace {

using Params = SsdParams<float>;

MAMBIFY_CLONES
void fill_steps(const Params& p, float* all_dt, float* all_decay) {
  const int64_t tokens = p.starts[p.documents];
  for (int64_t t = 0; t < tokens; ++t) {
    const float* raw = p.dt + t * p.dt_stride;
    float* dt = all_dt + t * p.heads;
    float* decay = all_decay + t * p.heads;
#pragma omp simd
    for (int64_t j = 0; j < p.heads; ++j) {
      const float unclamped = fast_softplus(raw[j] + (p.dt_bias ? p.dt_bias[j] : 0.0f));
      const float raised = unclamped < p.dt_min ? p.dt_min : unclamped;
      dt[j] = raised > p.dt_max ? p.dt_max : raised;
      decay[j] = fast_exp(dt[j] * p.A[j]);
    }
  }
}

// h: [rows, d_state], advanced in place; it is the final state's own memory when that is taken at
// the end. kState fixes d_state at compile time; 0: any.
template <int kState>
MAMBIFY_INLINE void forward_block_of(const Params& p, const Work& w, const Steps& steps, float* h) {
  const int64_t N = kState ? kState : p.d_state;
  const float skip = p.D ? p.D[w.head] : 0.0f;
  float* checkpoint = p.checkpoints ? p.checkpoints + w.checkpoint : nullptr;
  for (int64_t t = w.begin; t < w.end; ++t) {
    if (t == w.keep && p.final_state) std::copy_n(h, w.rows * N, p.final_state + w.state);
    if (checkpoint && (t - w.begin) % kChunk == 0) {
      std::copy_n(h, w.rows * N, checkpoint);
      checkpoint += p.heads * p.head_dim * N;
    }
    const float* x = x_at(p, w, t);
    const float* __restrict B = B_at(p, w, t);
    const float* __restrict C = C_at(p, w, t);
    float* y = p.y + (t * p.heads + w.head) * p.head_dim + w.first;
    const float dt = steps.dt.data()[t * p.heads + w.head],
                decay = steps.decay.data()[t * p.heads + w.head];
    for (int64_t r = 0; r < w.rows; ++r) {
      float* __restrict row = h + r * N;
      const float u = dt * x[r];
      alignas(64) float sums[kLanes] = {};
      for (int64_t n0 = 0; n0 < N; n0 += kLanes) {
        const int64_t width = kState ? kLanes : std::min(kLanes, N - n0);
#pragma omp simd
        for (int64_t lane = 0; lane < width; ++lane) {
          const float next = decay * row[n0 + lane] + u * B[n0 + lane];
          row[n0 + lane] = next;
          sums[lane] += next * C[n0 + lane];
        }
      }
      y[r] = sum_lanes(sums) + skip * x[r];
    }
  }
}

MAMBIFY_CLONES
void forward_block(const Params& p, const Work& w, const Steps& steps) {
  const int64_t size = w.rows * p.d_state;
  // What follows the final state must not be seen in it.
  const bool in_place = p.final_state && w.keep == w.end;
  const AlignedFloats own(in_place ? 0 : size);
  float* h = in_place ? p.final_state + w.state : own.data();
  if (!p.initial_state) {
    std::fill_n(h, size, 0.0f);
  } else if (p.initial_state + w.state != h) {
    std::copy_n(p.initial_state + w.state, size, h);
  }
  switch (p.d_state) {
    case 16:
      return forward_block_of<16>(p, w, steps, h);
    case 32:
      return forward_block_of<32>(p, w, steps, h);
    case 64:
      return forward_block_of<64>(p, w, steps, h);
    case 128:
      return forward_block_of<128>(p, w, steps, h);
    default:
      return forward_block_of<0>(p, w, steps, h);
  }
}

}  // namespace

ssd_cpu::Steps::Steps(const SsdParams<float>& p)
    : dt(p.starts[p.documents] * p.heads), decay(p.starts[p.documents] * p.heads) {
  fill_steps(p, dt.data(), decay.data());
}

void ssd_forward_cpu(const Params& p) {
  const Blocks blocks(p);
  const std::vector<int64_t> checkpoints = checkpoint_offsets(p.starts, p.documents);
  const Steps steps(p);
  parallel_tasks(p.documents * blocks.count, operations_of(p), [&](int64_t task) {
    forward_block(p, make_work(p, blocks, task / blocks.count, task % blocks.count, checkpoints),
                  steps);
  });
}

}  // namespace mambify::kernels
