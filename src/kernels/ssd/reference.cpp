#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/ssd/params.h"

namespace mambify::kernels {
namespace {

template <typename T>
T softplus(T x) {
  return std::max(x, T(0)) + std::log1p(std::exp(-std::abs(x)));
}

// The group that head j reads, of `groups`.
template <typename T>
int64_t group_of(const SsdParams<T>& p, int64_t j, int64_t groups) {
  return j / (p.heads / groups);
}

// What head j reads at token t.
template <typename T>
struct Step {
  T raw_dt, dt, decay;
  bool clamped;
  const T* x;  // [head_dim]
  const T* B;  // [d_state]
  const T* C;  // [d_state]
};

template <typename T>
Step<T> step_at(const SsdParams<T>& p, int64_t t, int64_t j) {
  const T raw_dt = p.dt[t * p.dt_stride + j] + (p.dt_bias ? p.dt_bias[j] : T(0));
  const T unclamped = softplus(raw_dt);
  const T dt = std::clamp(unclamped, p.dt_min, p.dt_max);
  return {.raw_dt = raw_dt,
          .dt = dt,
          .decay = std::exp(dt * p.A[j]),
          .clamped = unclamped < p.dt_min || unclamped > p.dt_max,
          .x = p.x + t * p.x_stride + group_of(p, j, p.x_groups) * p.head_dim,
          .B = p.B + t * p.b_stride + group_of(p, j, p.b_groups) * p.d_state,
          .C = p.C + t * p.c_stride + group_of(p, j, p.c_groups) * p.d_state};
}

// The states of head j before each token of the document and after the last:
// [length + 1, head_dim, d_state].
template <typename T>
std::vector<T> states_of(const SsdParams<T>& p, int64_t document, int64_t j) {
  const int64_t P = p.head_dim, N = p.d_state, begin = p.starts[document];
  const int64_t length = p.starts[document + 1] - begin;
  std::vector<T> h((length + 1) * P * N, T(0));
  if (p.initial_state) {
    std::copy_n(p.initial_state + (document * p.heads + j) * P * N, P * N, h.begin());
  }
  for (int64_t i = 0; i < length; ++i) {
    const Step<T> s = step_at(p, begin + i, j);
    const T* before = h.data() + i * P * N;
    T* after = h.data() + (i + 1) * P * N;
    for (int64_t r = 0; r < P; ++r) {
      for (int64_t n = 0; n < N; ++n) {
        after[r * N + n] = s.decay * before[r * N + n] + s.dt * s.x[r] * s.B[n];
      }
    }
  }
  return h;
}

}  // namespace

template <typename T>
void ssd_forward_reference(const SsdParams<T>& p) {
  const int64_t P = p.head_dim, N = p.d_state;
  for (int64_t document = 0; document < p.documents; ++document) {
    for (int64_t j = 0; j < p.heads; ++j) {
      const std::vector<T> states = states_of(p, document, j);
      const int64_t begin = p.starts[document], end = p.starts[document + 1];
      for (int64_t t = begin; t < end; ++t) {
        const Step<T> s = step_at(p, t, j);
        const T* h = states.data() + (t - begin + 1) * P * N;
        for (int64_t r = 0; r < P; ++r) {
          T y = p.D ? p.D[j] * s.x[r] : T(0);
          for (int64_t n = 0; n < N; ++n) y += h[r * N + n] * s.C[n];
          p.y[(t * p.heads + j) * P + r] = y;
        }
      }
      if (p.final_state) {
        const int64_t commit = p.commits ? p.commits[document] : end - begin;
        std::copy_n(states.begin() + commit * P * N, P * N,
                    p.final_state + (document * p.heads + j) * P * N);
      }
    }
  }
}

template <typename T>
void ssd_backward_reference(const SsdBackwardParams<T>& b) {
  const SsdParams<T>& p = b.forward;
  const int64_t P = p.head_dim, N = p.d_state, tokens = p.starts[p.documents];
  std::fill_n(b.dx, tokens * p.x_groups * P, T(0));
  std::fill_n(b.dA, p.heads, T(0));
  std::fill_n(b.dB, tokens * p.b_groups * N, T(0));
  std::fill_n(b.dC, tokens * p.c_groups * N, T(0));
  if (p.dt_bias) std::fill_n(b.ddt_bias, p.heads, T(0));
  if (p.D) std::fill_n(b.dD, p.heads, T(0));

  for (int64_t document = 0; document < p.documents; ++document) {
    for (int64_t j = 0; j < p.heads; ++j) {
      const std::vector<T> states = states_of(p, document, j);
      std::vector<T> dh(P * N, T(0));  // of the state after token t, from later tokens
      const int64_t begin = p.starts[document];
      for (int64_t t = p.starts[document + 1] - 1; t >= begin; --t) {
        const Step<T> s = step_at(p, t, j);
        const T* before = states.data() + (t - begin) * P * N;
        const T* after = before + P * N;
        const T* dy = b.dy + (t * p.heads + j) * P;
        T* dx = b.dx + (t * p.x_groups + group_of(p, j, p.x_groups)) * P;
        T* dB = b.dB + (t * p.b_groups + group_of(p, j, p.b_groups)) * N;
        T* dC = b.dC + (t * p.c_groups + group_of(p, j, p.c_groups)) * N;
        T d_exponent = 0, ddt = 0;
        for (int64_t r = 0; r < P; ++r) {
          for (int64_t n = 0; n < N; ++n) {
            T& g = dh[r * N + n];
            dC[n] += dy[r] * after[r * N + n];
            g += dy[r] * s.C[n];
            d_exponent += g * s.decay * before[r * N + n];
            ddt += g * s.x[r] * s.B[n];
            dx[r] += g * s.dt * s.B[n];
            dB[n] += g * s.dt * s.x[r];
            g *= s.decay;
          }
          if (p.D) {
            dx[r] += dy[r] * p.D[j];
            b.dD[j] += dy[r] * s.x[r];
          }
        }
        b.dA[j] += d_exponent * s.dt;
        ddt += d_exponent * p.A[j];
        // softplus' = sigmoid
        const T ddt_raw = s.clamped ? T(0) : ddt / (1 + std::exp(-s.raw_dt));
        b.ddt[t * p.heads + j] = ddt_raw;
        if (p.dt_bias) b.ddt_bias[j] += ddt_raw;
      }
    }
  }
}

template void ssd_forward_reference(const SsdParams<float>&);
template void ssd_forward_reference(const SsdParams<double>&);
template void ssd_backward_reference(const SsdBackwardParams<float>&);
template void ssd_backward_reference(const SsdBackwardParams<double>&);

}  // namespace mambify::kernels
