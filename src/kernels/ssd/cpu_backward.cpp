// Time advances in chunks between two checkpoints: the states of one are recomputed from its first,
// then gone through backward.
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
using BackwardParams = SsdBackwardParams<float>;

// What the blocks add up on their own, summed afterwards.
struct Partials {
  Partials(const Params& p, const Blocks& blocks)
      : dx(p.starts[p.documents] * p.heads * p.head_dim),
        dB(blocks.count * p.starts[p.documents] * p.d_state),
        dC(blocks.count * p.starts[p.documents] * p.d_state),
        ddt(blocks.count * p.starts[p.documents]),
        dA(p.documents * blocks.count),
        dD(p.documents * blocks.count) {}
  AlignedFloats dx;   // [T, heads, head_dim]
  AlignedFloats dB;   // [blocks, T, d_state]
  AlignedFloats dC;   // [blocks, T, d_state]
  AlignedFloats ddt;  // [blocks, T], of the step size
  AlignedFloats dA;   // [documents, blocks]
  AlignedFloats dD;   // [documents, blocks]
};

// Where one block of one document writes.
struct BlockOutputs {
  float* dB;   // [T, d_state]
  float* dC;   // [T, d_state]
  float* ddt;  // [T]
  float* dA;
  float* dD;
};

// What a block carries from chunk to chunk, later ones first.
struct BackwardState {
  explicit BackwardState(int64_t size) : h((kChunk + 1) * size), dh(size) {
    std::fill_n(dh.data(), size, 0.0f);
  }
  AlignedFloats h;   // [kChunk + 1, rows, d_state]: before each step of the chunk, and after
  AlignedFloats dh;  // [rows, d_state], from later tokens
  double dA = 0;
  double dD = 0;
};

// Rows of the state that share a pass over the sums over rows.
constexpr int64_t kTogether = 4;

// kTogether or fewer rows of h advance by one token: `after` from `before`, dC += dy^T h.
template <int64_t kCount>
MAMBIFY_INLINE void recompute_rows(int64_t N, const float* __restrict before,
                                   float* __restrict after, const float* u, const float* dy,
                                   float decay, const float* __restrict B, float* __restrict dC) {
#pragma omp simd
  for (int64_t n = 0; n < N; ++n) {
    float sum = dC[n];
#pragma GCC unroll 4
    for (int64_t i = 0; i < kCount; ++i) {
      const float next = decay * before[i * N + n] + u[i] * B[n];
      after[i * N + n] = next;
      sum += dy[i] * next;
    }
    dC[n] = sum;
  }
}

// Recomputes the states of tokens [begin, end) from the first, and dC with them.
template <int kState>
MAMBIFY_INLINE void recompute_chunk(const BackwardParams& b, const Work& w, const Steps& steps,
                                    int64_t begin, int64_t end, const BlockOutputs& out,
                                    float* states) {
  const Params& p = b.forward;
  const int64_t N = kState ? kState : p.d_state, size = w.rows * N;
  for (int64_t t = begin; t < end; ++t) {
    const float* x = x_at(p, w, t);
    const float* dy = b.dy + (t * p.heads + w.head) * p.head_dim + w.first;
    const float* B = B_at(p, w, t);
    float* dC = out.dC + t * N;
    const float dt = steps.dt.data()[t * p.heads + w.head],
                decay = steps.decay.data()[t * p.heads + w.head];
    const float* before = states + (t - begin) * size;
    float* after = states + (t - begin + 1) * size;
    float u[kRows];
    for (int64_t r = 0; r < w.rows; ++r) u[r] = dt * x[r];
    std::fill_n(dC, N, 0.0f);
    int64_t r = 0;
    for (; r + kTogether <= w.rows; r += kTogether) {
      recompute_rows<kTogether>(N, before + r * N, after + r * N, u + r, dy + r, decay, B, dC);
    }
    for (; r < w.rows; ++r) {
      recompute_rows<1>(N, before + r * N, after + r * N, u + r, dy + r, decay, B, dC);
    }
  }
}

// kTogether or fewer rows of dh go back by one token: dB += u^T dh, and in lanes the sums over n of
// dh B for each row and of dh h for all.
template <int kState, int64_t kCount>
MAMBIFY_INLINE void backward_rows(int64_t state_size, const float* __restrict before,
                                  float* __restrict dh, const float* u, const float* dy,
                                  float decay, const float* __restrict B, const float* __restrict C,
                                  float* __restrict dB, float* __restrict du_lanes,
                                  float* __restrict decay_lanes) {
  const int64_t N = kState ? kState : state_size;
  for (int64_t n0 = 0; n0 < N; n0 += kLanes) {
    const int64_t width = kState ? kLanes : std::min(kLanes, N - n0);
#pragma omp simd
    for (int64_t lane = 0; lane < width; ++lane) {
      const int64_t n = n0 + lane;
      float sum = dB[n], decay_sum = decay_lanes[lane];
#pragma GCC unroll 4
      for (int64_t i = 0; i < kCount; ++i) {
        const float total = dh[i * N + n] + dy[i] * C[n];
        sum += total * u[i];
        du_lanes[i * kLanes + lane] += total * B[n];
        decay_sum += total * before[i * N + n];
        dh[i * N + n] = decay * total;
      }
      dB[n] = sum;
      decay_lanes[lane] = decay_sum;
    }
  }
}

// Goes back through the same tokens: dx, dB, and the gradients of the step size and of A.
template <int kState>
MAMBIFY_INLINE void backward_chunk(const BackwardParams& b, const Work& w, const Steps& steps,
                                   int64_t begin, int64_t end, const BlockOutputs& out,
                                   float* dx_heads, BackwardState& state) {
  const Params& p = b.forward;
  const int64_t N = kState ? kState : p.d_state, size = w.rows * N;
  const float skip = p.D ? p.D[w.head] : 0.0f;
  for (int64_t t = end - 1; t >= begin; --t) {
    const float* x = x_at(p, w, t);
    const int64_t row_at = (t * p.heads + w.head) * p.head_dim + w.first;
    const float* dy = b.dy + row_at;
    float* dx = dx_heads + row_at;
    const float* B = B_at(p, w, t);
    const float* C = C_at(p, w, t);
    float* dB = out.dB + t * N;
    const float dt = steps.dt.data()[t * p.heads + w.head],
                decay = steps.decay.data()[t * p.heads + w.head];
    const float* before = state.h.data() + (t - begin) * size;
    float* dh = state.dh.data();
    float u[kRows];
    alignas(64) float du_lanes[kRows * kLanes] = {}, decay_lanes[kLanes] = {};
    for (int64_t r = 0; r < w.rows; ++r) u[r] = dt * x[r];
    std::fill_n(dB, N, 0.0f);
    int64_t r = 0;
    for (; r + kTogether <= w.rows; r += kTogether) {
      backward_rows<kState, kTogether>(N, before + r * N, dh + r * N, u + r, dy + r, decay, B, C,
                                       dB, du_lanes + r * kLanes, decay_lanes);
    }
    for (; r < w.rows; ++r) {
      backward_rows<kState, 1>(N, before + r * N, dh + r * N, u + r, dy + r, decay, B, C, dB,
                               du_lanes + r * kLanes, decay_lanes);
    }
    float d_dt = 0.0f, dD = 0.0f;
    for (r = 0; r < w.rows; ++r) {
      const float du = sum_lanes(du_lanes + r * kLanes);
      dx[r] = du * dt + dy[r] * skip;
      d_dt += du * x[r];
      dD += dy[r] * x[r];
    }
    const float d_exponent = sum_lanes(decay_lanes) * decay;
    out.ddt[t] = d_exponent * p.A[w.head] + d_dt;
    state.dA += d_exponent * dt;
    state.dD += dD;
  }
}

template <int kState>
MAMBIFY_INLINE void backward_block_of(const BackwardParams& b, const Work& w, const Steps& steps,
                                      const BlockOutputs& out, float* dx_heads) {
  const Params& p = b.forward;
  const int64_t size = w.rows * p.d_state;
  BackwardState state(size);
  for (int64_t c = checkpoints_for(w.end - w.begin) - 1; c >= 0; --c) {
    const int64_t begin = w.begin + c * kChunk, end = std::min(begin + kChunk, w.end);
    std::copy_n(p.checkpoints + w.checkpoint + c * p.heads * p.head_dim * p.d_state, size,
                state.h.data());
    recompute_chunk<kState>(b, w, steps, begin, end, out, state.h.data());
    backward_chunk<kState>(b, w, steps, begin, end, out, dx_heads, state);
  }
  *out.dA = static_cast<float>(state.dA);
  *out.dD = static_cast<float>(state.dD);
}

MAMBIFY_CLONES
void backward_block(const BackwardParams& b, const Work& w, const Steps& steps,
                    const BlockOutputs& out, float* dx_heads) {
  switch (b.forward.d_state) {
    case 16:
      return backward_block_of<16>(b, w, steps, out, dx_heads);
    case 32:
      return backward_block_of<32>(b, w, steps, out, dx_heads);
    case 64:
      return backward_block_of<64>(b, w, steps, out, dx_heads);
    case 128:
      return backward_block_of<128>(b, w, steps, out, dx_heads);
    default:
      return backward_block_of<0>(b, w, steps, out, dx_heads);
  }
}

// out: [groups, size], the sums of each group's parts; part i begins at parts + i * stride.
MAMBIFY_INLINE void sum_groups(const float* parts, int64_t count, int64_t stride, int64_t groups,
                               int64_t size, float* out) {
  const int64_t per_group = count / groups;
  for (int64_t g = 0; g < groups; ++g) {
    float* __restrict sum = out + g * size;
    std::copy_n(parts + g * per_group * stride, size, sum);
    for (int64_t i = 1; i < per_group; ++i) {
      const float* __restrict part = parts + (g * per_group + i) * stride;
#pragma omp simd
      for (int64_t n = 0; n < size; ++n) sum[n] += part[n];
    }
  }
}

MAMBIFY_CLONES
void sum_token(const BackwardParams& b, const Blocks& blocks, const Partials& parts, int64_t t) {
  const Params& p = b.forward;
  const int64_t tokens = p.starts[p.documents], N = p.d_state, P = p.head_dim;
  sum_groups(parts.dx.data() + t * p.heads * P, p.heads, P, p.x_groups, P,
             b.dx + t * p.x_groups * P);
  sum_groups(parts.dB.data() + t * N, blocks.count, tokens * N, p.b_groups, N,
             b.dB + t * p.b_groups * N);
  sum_groups(parts.dC.data() + t * N, blocks.count, tokens * N, p.c_groups, N,
             b.dC + t * p.c_groups * N);
  float* ddt = b.ddt + t * p.heads;
  sum_groups(parts.ddt.data() + t, blocks.count, tokens, p.heads, 1, ddt);
  for (int64_t j = 0; j < p.heads; ++j) {
    const float raw = p.dt[t * p.dt_stride + j] + (p.dt_bias ? p.dt_bias[j] : 0.0f);
    const float unclamped = fast_softplus(raw);
    const bool clamped = unclamped < p.dt_min || unclamped > p.dt_max;
    ddt[j] = clamped ? 0.0f : ddt[j] * fast_sigmoid(raw);  // softplus' = sigmoid
  }
}

// Sums of one value per head over rows of values.
void sum_heads(const float* values, int64_t rows, int64_t per_row, int64_t heads, float* out) {
  std::vector<double> sums(heads);
  for (int64_t i = 0; i < rows * per_row; ++i) sums[i % per_row / (per_row / heads)] += values[i];
  std::copy(sums.begin(), sums.end(), out);
}

}  // namespace

void ssd_backward_cpu(const BackwardParams& b) {
  const Params& p = b.forward;
  const Blocks blocks(p);
  const int64_t tokens = p.starts[p.documents];
  const std::vector<int64_t> checkpoints = checkpoint_offsets(p.starts, p.documents);
  const Steps steps(p);
  const Partials parts(p, blocks);
  parallel_tasks(p.documents * blocks.count, operations_of(p), [&](int64_t at) {
    const int64_t document = at / blocks.count, block = at % blocks.count;
    backward_block(b, make_work(p, blocks, document, block, checkpoints), steps,
                   {.dB = parts.dB.data() + block * tokens * p.d_state,
                    .dC = parts.dC.data() + block * tokens * p.d_state,
                    .ddt = parts.ddt.data() + block * tokens,
                    .dA = parts.dA.data() + at,
                    .dD = parts.dD.data() + at},
                   parts.dx.data());
  });
  parallel_tasks(tokens, tokens * blocks.count * p.d_state,
                 [&](int64_t t) { sum_token(b, blocks, parts, t); });
  sum_heads(parts.dA.data(), p.documents, blocks.count, p.heads, b.dA);
  if (p.D) sum_heads(parts.dD.data(), p.documents, blocks.count, p.heads, b.dD);
  if (p.dt_bias) sum_heads(b.ddt, tokens, p.heads, p.heads, b.ddt_bias);
}

}  // namespace mambify::kernels
