// Each head's state is cut into blocks of rows (of head_dim), the unit of parallel work; a block's
// state stays in the first cache while time passes over it. At the widths of these models that is
// faster than the chunked form made of matrix products, and it is the order in which decoding
// computes. The backward pass recomputes the states of one chunk at a time from a checkpoint.
#include <algorithm>
#include <memory>
#include <vector>

#include "kernels/math.h"
#include "kernels/scan_checkpoints.h"
#include "kernels/ssd/params.h"

namespace mambify::kernels {
namespace {

using Params = SsdParams<float>;
using BackwardParams = SsdBackwardParams<float>;

constexpr int64_t kRows = 32;
constexpr int64_t kChunk = kCheckpointInterval;

struct Blocks {
  explicit Blocks(const Params& p)
      : per_head((p.head_dim + kRows - 1) / kRows), count(p.heads * per_head) {}
  int64_t per_head;
  int64_t count;
};

// One block of rows of one head through one document.
struct Work {
  int64_t begin, end;  // tokens
  int64_t head;
  int64_t first, rows;  // of the head's rows
  int64_t state;        // where its state begins in [documents, heads, head_dim, d_state]
  int64_t checkpoint;   // where its first checkpoint begins in [checkpoints, heads, ...]
};

Work make_work(const Params& p, const Blocks& blocks, int64_t document, int64_t block,
               const std::vector<int64_t>& checkpoints) {
  const int64_t head = block / blocks.per_head, first = block % blocks.per_head * kRows;
  const auto state_of = [&](int64_t i) {
    return ((i * p.heads + head) * p.head_dim + first) * p.d_state;
  };
  return {.begin = p.starts[document],
          .end = p.starts[document + 1],
          .head = head,
          .first = first,
          .rows = std::min(kRows, p.head_dim - first),
          .state = state_of(document),
          .checkpoint = state_of(checkpoints[document])};
}

const float* x_at(const Params& p, const Work& w, int64_t t) {
  return p.x + t * p.x_stride + w.head / (p.heads / p.x_groups) * p.head_dim + w.first;
}
const float* B_at(const Params& p, const Work& w, int64_t t) {
  return p.B + t * p.b_stride + w.head / (p.heads / p.b_groups) * p.d_state;
}
const float* C_at(const Params& p, const Work& w, int64_t t) {
  return p.C + t * p.c_stride + w.head / (p.heads / p.c_groups) * p.d_state;
}

// Step sizes and decays of all tokens, [T, heads] each.
struct Steps {
  explicit Steps(const Params& p)
      : dt(std::make_unique_for_overwrite<float[]>(p.starts[p.documents] * p.heads)),
        decay(std::make_unique_for_overwrite<float[]>(p.starts[p.documents] * p.heads)) {}
  std::unique_ptr<float[]> dt;
  std::unique_ptr<float[]> decay;
};

MAMBIFY_CLONES
void fill_steps(const Params& p, Steps& steps) {
  const int64_t tokens = p.starts[p.documents];
  for (int64_t t = 0; t < tokens; ++t) {
    const float* raw = p.dt + t * p.dt_stride;
    float* dt = steps.dt.get() + t * p.heads;
    float* decay = steps.decay.get() + t * p.heads;
#pragma omp simd
    for (int64_t j = 0; j < p.heads; ++j) {
      const float unclamped = fast_softplus(raw[j] + (p.dt_bias ? p.dt_bias[j] : 0.0f));
      const float raised = unclamped < p.dt_min ? p.dt_min : unclamped;
      dt[j] = raised > p.dt_max ? p.dt_max : raised;
      decay[j] = fast_exp(dt[j] * p.A[j]);
    }
  }
}

// h: [rows, d_state], advanced in place. kState fixes d_state at compile time; 0: any.
template <int kState>
MAMBIFY_INLINE void forward_block_of(const Params& p, const Work& w, const Steps& steps, float* h) {
  const int64_t N = kState ? kState : p.d_state;
  const float skip = p.D ? p.D[w.head] : 0.0f;
  float* checkpoint = p.checkpoints ? p.checkpoints + w.checkpoint : nullptr;
  for (int64_t t = w.begin; t < w.end; ++t) {
    if (checkpoint && (t - w.begin) % kChunk == 0) {
      std::copy_n(h, w.rows * N, checkpoint);
      checkpoint += p.heads * p.head_dim * N;
    }
    const float* x = x_at(p, w, t);
    const float* __restrict B = B_at(p, w, t);
    const float* __restrict C = C_at(p, w, t);
    float* y = p.y + (t * p.heads + w.head) * p.head_dim + w.first;
    const float dt = steps.dt[t * p.heads + w.head], decay = steps.decay[t * p.heads + w.head];
    for (int64_t r = 0; r < w.rows; ++r) {
      float* __restrict row = h + r * N;
      const float u = dt * x[r];
      float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t n = 0; n < N; ++n) {
        const float next = decay * row[n] + u * B[n];
        row[n] = next;
        sum += next * C[n];
      }
      y[r] = sum + skip * x[r];
    }
  }
}

MAMBIFY_CLONES
void forward_block(const Params& p, const Work& w, const Steps& steps) {
  const int64_t size = w.rows * p.d_state;
  std::vector<float> own;
  float* h = p.final_state ? p.final_state + w.state : nullptr;
  if (!h) {
    own.resize(size);
    h = own.data();
  }
  if (!p.initial_state) {
    std::fill_n(h, size, 0.0f);
  } else if (p.initial_state + w.state != h) {
    std::copy_n(p.initial_state + w.state, size, h);
  }
  switch (p.d_state) {
    case 16:
      return forward_block_of<16>(p, w, steps, h);
    case 64:
      return forward_block_of<64>(p, w, steps, h);
    case 128:
      return forward_block_of<128>(p, w, steps, h);
    default:
      return forward_block_of<0>(p, w, steps, h);
  }
}

// What the blocks add up on their own, summed afterwards.
struct Partials {
  Partials(const Params& p, const Blocks& blocks)
      : dx(allocate(p.starts[p.documents] * p.heads * p.head_dim)),
        dB(allocate(blocks.count * p.starts[p.documents] * p.d_state)),
        dC(allocate(blocks.count * p.starts[p.documents] * p.d_state)),
        ddt(allocate(blocks.count * p.starts[p.documents])),
        dA(allocate(p.documents * blocks.count)),
        dD(allocate(p.documents * blocks.count)) {}
  static std::unique_ptr<float[]> allocate(int64_t size) {
    return std::make_unique_for_overwrite<float[]>(size);
  }
  std::unique_ptr<float[]> dx;   // [T, heads, head_dim]
  std::unique_ptr<float[]> dB;   // [blocks, T, d_state]
  std::unique_ptr<float[]> dC;   // [blocks, T, d_state]
  std::unique_ptr<float[]> ddt;  // [blocks, T], of the step size
  std::unique_ptr<float[]> dA;   // [documents, blocks]
  std::unique_ptr<float[]> dD;   // [documents, blocks]
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
  explicit BackwardState(int64_t size) : h((kChunk + 1) * size), dh(size) {}
  std::vector<float> h;   // [kChunk + 1, rows, d_state]: before each step of the chunk, and after
  std::vector<float> dh;  // [rows, d_state], from later tokens
  double dA = 0;
  double dD = 0;
};

// Recomputes the states of `steps` tokens from the first, and dC with them.
template <int kState>
MAMBIFY_INLINE void recompute_chunk(const BackwardParams& b, const Work& w, const Steps& steps,
                                    int64_t begin, int64_t end, const BlockOutputs& out,
                                    float* states) {
  const Params& p = b.forward;
  const int64_t N = kState ? kState : p.d_state, size = w.rows * N;
  for (int64_t t = begin; t < end; ++t) {
    const float* x = x_at(p, w, t);
    const float* dy = b.dy + (t * p.heads + w.head) * p.head_dim + w.first;
    const float* __restrict B = B_at(p, w, t);
    float* __restrict dC = out.dC + t * N;
    const float dt = steps.dt[t * p.heads + w.head], decay = steps.decay[t * p.heads + w.head];
    std::fill_n(dC, N, 0.0f);
    for (int64_t r = 0; r < w.rows; ++r) {
      const float* __restrict before = states + (t - begin) * size + r * N;
      float* __restrict after = states + (t - begin + 1) * size + r * N;
      const float u = dt * x[r], g = dy[r];
#pragma omp simd
      for (int64_t n = 0; n < N; ++n) {
        const float next = decay * before[n] + u * B[n];
        after[n] = next;
        dC[n] += g * next;
      }
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
    const float* __restrict B = B_at(p, w, t);
    const float* __restrict C = C_at(p, w, t);
    float* __restrict dB = out.dB + t * N;
    const float dt = steps.dt[t * p.heads + w.head], decay = steps.decay[t * p.heads + w.head];
    std::fill_n(dB, N, 0.0f);
    float d_decay = 0.0f, d_dt = 0.0f, dD = 0.0f;
    for (int64_t r = 0; r < w.rows; ++r) {
      const float* __restrict before = state.h.data() + (t - begin) * size + r * N;
      float* __restrict dh = state.dh.data() + r * N;
      const float u = dt * x[r], g = dy[r];
      float du = 0.0f, dot = 0.0f;
#pragma omp simd reduction(+ : du, dot)
      for (int64_t n = 0; n < N; ++n) {
        const float total = dh[n] + g * C[n];
        du += total * B[n];
        dot += total * before[n];
        dB[n] += total * u;
        dh[n] = decay * total;
      }
      dx[r] = du * dt + g * skip;
      d_dt += du * x[r];
      d_decay += dot;
      dD += g * x[r];
    }
    const float d_exponent = d_decay * decay;
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
                state.h.begin());
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
  sum_groups(parts.dx.get() + t * p.heads * P, p.heads, P, p.x_groups, P,
             b.dx + t * p.x_groups * P);
  sum_groups(parts.dB.get() + t * N, blocks.count, tokens * N, p.b_groups, N,
             b.dB + t * p.b_groups * N);
  sum_groups(parts.dC.get() + t * N, blocks.count, tokens * N, p.c_groups, N,
             b.dC + t * p.c_groups * N);
  float* ddt = b.ddt + t * p.heads;
  sum_groups(parts.ddt.get() + t, blocks.count, tokens, p.heads, 1, ddt);
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

void ssd_forward_cpu(const Params& p) {
  const Blocks blocks(p);
  const std::vector<int64_t> checkpoints = checkpoint_offsets(p.starts, p.documents);
  Steps steps(p);
  fill_steps(p, steps);
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t document = 0; document < p.documents; ++document) {
    for (int64_t block = 0; block < blocks.count; ++block) {
      forward_block(p, make_work(p, blocks, document, block, checkpoints), steps);
    }
  }
}

void ssd_backward_cpu(const BackwardParams& b) {
  const Params& p = b.forward;
  const Blocks blocks(p);
  const int64_t tokens = p.starts[p.documents];
  const std::vector<int64_t> checkpoints = checkpoint_offsets(p.starts, p.documents);
  Steps steps(p);
  fill_steps(p, steps);
  const Partials parts(p, blocks);
#pragma omp parallel
  {
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t document = 0; document < p.documents; ++document) {
      for (int64_t block = 0; block < blocks.count; ++block) {
        const int64_t at = document * blocks.count + block;
        backward_block(b, make_work(p, blocks, document, block, checkpoints), steps,
                       {.dB = parts.dB.get() + block * tokens * p.d_state,
                        .dC = parts.dC.get() + block * tokens * p.d_state,
                        .ddt = parts.ddt.get() + block * tokens,
                        .dA = parts.dA.get() + at,
                        .dD = parts.dD.get() + at},
                       parts.dx.get());
      }
    }
#pragma omp for
    for (int64_t t = 0; t < tokens; ++t) sum_token(b, blocks, parts, t);
  }
  sum_heads(parts.dA.get(), p.documents, blocks.count, p.heads, b.dA);
  if (p.D) sum_heads(parts.dD.get(), p.documents, blocks.count, p.heads, b.dD);
  if (p.dt_bias) sum_heads(b.ddt, tokens, p.heads, p.heads, b.ddt_bias);
}

}  // namespace mambify::kernels
