// Channels are cut into slabs, the unit of parallel work. Inside a slab, time advances in chunks
// between two checkpoints so that B, C and, backward, the recomputed states of a channel stay in
// the first cache; the innermost loops run over the state.
#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/lanes.h"
#include "kernels/math.h"
#include "kernels/scan_checkpoints.h"
#include "kernels/selective_scan/params.h"

namespace mambify::kernels {
namespace {

using Params = SelectiveScanParams<float>;
using BackwardParams = SelectiveScanBackwardParams<float>;

constexpr int64_t kChunk = kCheckpointInterval;
constexpr int64_t kSlab = 32;

// All channels of a slab read the same groups of B and C. The cut depends on the sizes alone, so
// that sums over slabs have the same bits with any number of threads.
struct Slabs {
  explicit Slabs(const Params& p)
      : unit(std::gcd(p.channels / p.b_groups, p.channels / p.c_groups)),
        per_unit((unit + kSlab - 1) / kSlab),
        count(p.channels / unit * per_unit) {}

  int64_t begin(int64_t slab) const { return slab / per_unit * unit + slab % per_unit * kSlab; }
  int64_t end(int64_t slab) const {
    return std::min(begin(slab) + kSlab, (slab / per_unit + 1) * unit);
  }

  int64_t unit;  // neighbouring channels with the same groups of B and C
  int64_t per_unit;
  int64_t count;
};

struct Work {
  int64_t document;
  int64_t first;         // channel
  int64_t width;         // channels
  int64_t checkpoint;    // the document's first
  const float* initial;  // [width, d_state]; null: zero
};

Work make_work(const Params& p, const Slabs& slabs, int64_t document, int64_t slab,
               int64_t checkpoint) {
  const int64_t first = slabs.begin(slab);
  return {.document = document,
          .first = first,
          .width = slabs.end(slab) - first,
          .checkpoint = checkpoint,
          .initial = p.initial_state ? p.initial_state + (document * p.channels + first) * p.d_state
                                     : nullptr};
}

// Step sizes and their products with the input for a chunk of tokens, [steps, kSlab].
struct ChunkInputs {
  alignas(64) float dt[kChunk * kSlab];
  alignas(64) float u[kChunk * kSlab];
};

MAMBIFY_INLINE void load_chunk(const Params& p, const Work& w, int64_t begin, int64_t steps,
                               ChunkInputs& in) {
  for (int64_t k = 0; k < steps; ++k) {
    const float* raw = p.dt + (begin + k) * p.dt_stride + w.first;
    const float* x = p.x + (begin + k) * p.x_stride + w.first;
    float* dt = in.dt + k * kSlab;
    float* u = in.u + k * kSlab;
    if (p.dt_bias) {
      const float* bias = p.dt_bias + w.first;
#pragma omp simd
      for (int64_t i = 0; i < w.width; ++i) dt[i] = fast_softplus(raw[i] + bias[i]);
    } else {
#pragma omp simd
      for (int64_t i = 0; i < w.width; ++i) dt[i] = fast_softplus(raw[i]);
    }
#pragma omp simd
    for (int64_t i = 0; i < w.width; ++i) u[i] = dt[i] * x[i];
  }
}

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

template <int kState>
MAMBIFY_INLINE void forward_slab_of(const Params& p, const Work& w, float* h) {
  const int64_t N = kState ? kState : p.d_state;
  const int64_t end = p.starts[w.document + 1];
  ChunkInputs in;
  for (int64_t t = p.starts[w.document], c = w.checkpoint; t < end; t += kChunk, ++c) {
    const int64_t steps = std::min(kChunk, end - t);
    if (p.checkpoints) {
      std::copy_n(h, w.width * N, p.checkpoints + (c * p.channels + w.first) * N);
    }
    load_chunk(p, w, t, steps, in);
    forward_chunk<kState>(p, w, t, steps, in, h);
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
  if (p.final_state) {
    std::copy_n(h.data(), size, p.final_state + (w.document * p.channels + w.first) * N);
  }
}

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

void selective_scan_forward_cpu(const Params& p) {
  const Slabs slabs(p);
  const std::vector<int64_t> offsets = checkpoint_offsets(p.starts, p.documents);
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t document = 0; document < p.documents; ++document) {
    for (int64_t slab = 0; slab < slabs.count; ++slab) {
      forward_slab(p, make_work(p, slabs, document, slab, offsets[document]));
    }
  }
}

void selective_scan_backward_cpu(const BackwardParams& b) {
  const Params& p = b.forward;
  const Slabs slabs(p);
  const std::vector<int64_t> offsets = checkpoint_offsets(p.starts, p.documents);
  const int64_t tokens = p.starts[p.documents], size = tokens * p.d_state;
  const AlignedFloats dB(slabs.count * size), dC(slabs.count * size);
#pragma omp parallel
  {
#pragma omp for schedule(dynamic)
    for (int64_t slab = 0; slab < slabs.count; ++slab) {
      backward_slab(b, slabs, slab, offsets, {dB.data() + slab * size, dC.data() + slab * size});
    }
#pragma omp for
    for (int64_t t = 0; t < tokens; ++t) {
      sum_slabs(dB.data(), slabs.count, tokens, t, p.b_groups, p.d_state, b.dB);
      sum_slabs(dC.data(), slabs.count, tokens, t, p.c_groups, p.d_state, b.dC);
    }
  }
}

}  // namespace mambify::kernels
