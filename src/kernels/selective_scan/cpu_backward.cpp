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
using BackwardParams = SelectiveScanBackwardParams<float>;

// What one slab adds up on its own; the slabs of a group are summed afterwards.
struct Partial {
  float* dB;  // [T, d_state]
  float* dC;  // [T, d_state]
};

struct BackwardBuffers {
  explicit BackwardBuffers(int64_t d_state)
      : states((kChunk + 1) * d_state),
        decays(kChunk * d_state),
        dh(kSlab * d_state),
        dA(kSlab * d_state) {}
  AlignedFloats states;  // [kChunk + 1, d_state] of one channel: before each step and after
  AlignedFloats decays;  // [kChunk, d_state] of one channel
  AlignedFloats dh;      // [kSlab, d_state] from later tokens
  AlignedFloats dA;      // [kSlab, d_state] of this document
  float ddt_bias[kSlab];
  float dD[kSlab];
};

template <int kState>
MAMBIFY_INLINE void recompute_states(const Params& p, const float* __restrict A, const float* B0,
                                     int64_t steps, const float* dt, const float* u,
                                     BackwardBuffers& buffers) {
  const int64_t N = kState ? kState : p.d_state;
  for (int64_t k = 0; k < steps; ++k) {
    const float* __restrict B = B0 + k * p.b_stride;
    const float* __restrict before = buffers.states.data() + k * N;
    float* __restrict after = buffers.states.data() + (k + 1) * N;
    float* __restrict decay = buffers.decays.data() + k * N;
#pragma omp simd
    for (int64_t n = 0; n < N; ++n) {
      const float a = fast_exp(dt[k * kSlab] * A[n]);
      decay[n] = a;
      after[n] = a * before[n] + u[k * kSlab] * B[n];
    }
  }
}

template <int kState>
MAMBIFY_INLINE void backward_chunk(const BackwardParams& b, const Work& w, int64_t begin,
                                   int64_t steps, const float* checkpoint, const ChunkInputs& in,
                                   const Partial& partial, BackwardBuffers& buffers) {
  const Params& p = b.forward;
  const int64_t N = kState ? kState : p.d_state;
  const float* B0 = p.B + begin * p.b_stride + w.first / (p.channels / p.b_groups) * N;
  const float* C0 = p.C + begin * p.c_stride + w.first / (p.channels / p.c_groups) * N;
  std::fill_n(partial.dB + begin * N, steps * N, 0.0f);
  std::fill_n(partial.dC + begin * N, steps * N, 0.0f);
  for (int64_t i = 0; i < w.width; ++i) {
    const int64_t d = w.first + i;
    const float* __restrict A = p.A + d * N;
    float* __restrict dh = buffers.dh.data() + i * N;
    float* __restrict dA = buffers.dA.data() + i * N;
    std::copy_n(checkpoint + d * N, N, buffers.states.data());
    recompute_states<kState>(p, A, B0, steps, in.dt + i, in.u + i, buffers);
    const float skip = p.D ? p.D[d] : 0.0f;
    for (int64_t k = steps - 1; k >= 0; --k) {
      const int64_t t = begin + k;
      const float* __restrict B = B0 + k * p.b_stride;
      const float* __restrict C = C0 + k * p.c_stride;
      const float* __restrict before = buffers.states.data() + k * N;
      const float* __restrict after = before + N;
      const float* __restrict decay = buffers.decays.data() + k * N;
      float* __restrict dB = partial.dB + t * N;
      float* __restrict dC = partial.dC + t * N;
      const float dt = in.dt[k * kSlab + i], u = in.u[k * kSlab + i];
      const float dy = b.dy[t * p.channels + d];
      alignas(64) float du_lanes[kLanes] = {}, exponent_lanes[kLanes] = {};
      for (int64_t n0 = 0; n0 < N; n0 += kLanes) {
        const int64_t width = kState ? kLanes : std::min(kLanes, N - n0);
#pragma omp simd
        for (int64_t lane = 0; lane < width; ++lane) {
          const int64_t n = n0 + lane;
          const float g = dh[n] + dy * C[n];
          dC[n] += dy * after[n];
          dB[n] += g * u;
          du_lanes[lane] += g * B[n];
          const float decayed = g * decay[n];
          const float d_exponent = decayed * before[n];
          dA[n] += d_exponent * dt;
          exponent_lanes[lane] += d_exponent * A[n];
          dh[n] = decayed;
        }
      }
      const float du = sum_lanes(du_lanes);
      const float x = p.x[t * p.x_stride + d];
      b.dx[t * p.channels + d] = du * dt + dy * skip;
      b.ddt[t * p.channels + d] =
          sum_lanes(exponent_lanes) + du * x;  // of the step size; finished below
      buffers.dD[i] += dy * x;
    }
  }
}

// From the step size's gradient to that of its argument: softplus' = sigmoid.
MAMBIFY_INLINE void finish_ddt(const BackwardParams& b, const Work& w, int64_t begin, int64_t steps,
                               BackwardBuffers& buffers) {
  const Params& p = b.forward;
  for (int64_t t = begin + steps - 1; t >= begin; --t) {
    const float* raw = p.dt + t * p.dt_stride + w.first;
    float* ddt = b.ddt + t * p.channels + w.first;
#pragma omp simd
    for (int64_t i = 0; i < w.width; ++i) {
      const float bias = p.dt_bias ? p.dt_bias[w.first + i] : 0.0f;
      ddt[i] *= fast_sigmoid(raw[i] + bias);
      buffers.ddt_bias[i] += ddt[i];
    }
  }
}

template <int kState>
MAMBIFY_INLINE void backward_document(const BackwardParams& b, const Work& w,
                                      const Partial& partial, BackwardBuffers& buffers) {
  const Params& p = b.forward;
  const int64_t N = kState ? kState : p.d_state;
  const int64_t begin = p.starts[w.document], end = p.starts[w.document + 1];
  ChunkInputs in;
  for (int64_t c = checkpoints_for(end - begin) - 1; c >= 0; --c) {
    const int64_t t = begin + c * kChunk, steps = std::min(kChunk, end - t);
    load_chunk(p, w, t, steps, in);
    backward_chunk<kState>(b, w, t, steps, p.checkpoints + (w.checkpoint + c) * p.channels * N, in,
                           partial, buffers);
    finish_ddt(b, w, t, steps, buffers);
  }
}

MAMBIFY_CLONES
void backward_slab_document(const BackwardParams& b, const Work& w, const Partial& partial,
                            BackwardBuffers& buffers) {
  std::fill_n(buffers.dh.data(), w.width * b.forward.d_state, 0.0f);
  std::fill_n(buffers.dA.data(), w.width * b.forward.d_state, 0.0f);
  std::fill_n(buffers.ddt_bias, kSlab, 0.0f);
  std::fill_n(buffers.dD, kSlab, 0.0f);
  switch (b.forward.d_state) {
    case 16:
      backward_document<16>(b, w, partial, buffers);
      break;
    case 32:
      backward_document<32>(b, w, partial, buffers);
      break;
    case 64:
      backward_document<64>(b, w, partial, buffers);
      break;
    case 128:
      backward_document<128>(b, w, partial, buffers);
      break;
    default:
      backward_document<0>(b, w, partial, buffers);
  }
}

void backward_slab(const BackwardParams& b, const Slabs& slabs, int64_t slab,
                   const std::vector<int64_t>& offsets, const Partial& partial) {
  const Params& p = b.forward;
  const int64_t N = p.d_state;
  BackwardBuffers buffers(N);
  const int64_t first = slabs.begin(slab), width = slabs.end(slab) - first;
  std::fill_n(b.dA + first * N, width * N, 0.0f);
  if (p.dt_bias) std::fill_n(b.ddt_bias + first, width, 0.0f);
  if (p.D) std::fill_n(b.dD + first, width, 0.0f);
  for (int64_t document = 0; document < p.documents; ++document) {
    backward_slab_document(b, make_work(p, slabs, document, slab, offsets[document]), partial,
                           buffers);
    for (int64_t i = 0; i < width * N; ++i) b.dA[first * N + i] += buffers.dA.data()[i];
    for (int64_t i = 0; i < width; ++i) {
      if (p.dt_bias) b.ddt_bias[first + i] += buffers.ddt_bias[i];
      if (p.D) b.dD[first + i] += buffers.dD[i];
    }
  }
}

// out: [T, groups, d_state] at one token; parts: [slabs, T, d_state].
MAMBIFY_CLONES
void sum_slabs(const float* parts, int64_t slabs, int64_t tokens, int64_t t, int64_t groups,
               int64_t N, float* out) {
  const int64_t per_group = slabs / groups;
  for (int64_t g = 0; g < groups; ++g) {
    float* __restrict sum = out + (t * groups + g) * N;
    std::copy_n(parts + (g * per_group * tokens + t) * N, N, sum);
    for (int64_t s = 1; s < per_group; ++s) {
      const float* __restrict part = parts + ((g * per_group + s) * tokens + t) * N;
#pragma omp simd
      for (int64_t n = 0; n < N; ++n) sum[n] += part[n];
    }
  }
}

}  // namespace

void selective_scan_backward_cpu(const BackwardParams& b) {
  const Params& p = b.forward;
  const Slabs slabs(p);
  const std::vector<int64_t> offsets = checkpoint_offsets(p.starts, p.documents);
  const int64_t tokens = p.starts[p.documents], size = tokens * p.d_state;
  const AlignedFloats dB(slabs.count * size), dC(slabs.count * size);
  parallel_tasks(slabs.count, operations_of(p), [&](int64_t slab) {
    backward_slab(b, slabs, slab, offsets, {dB.data() + slab * size, dC.data() + slab * size});
  });
  parallel_tasks(tokens, slabs.count * size, [&](int64_t t) {
    sum_slabs(dB.data(), slabs.count, tokens, t, p.b_groups, p.d_state, b.dB);
    sum_slabs(dC.data(), slabs.count, tokens, t, p.c_groups, p.d_state, b.dC);
  });
}

}  // namespace mambify::kernels
