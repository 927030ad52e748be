#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/selective_scan/params.h"

namespace mambify::kernels {
namespace {

template <typename T>
T softplus(T x) {
  return std::max(x, T(0)) + std::log1p(std::exp(-std::abs(x)));
}

// Where channel d of one token finds what it reads.
template <typename T>
struct Step {
  T x, raw_dt, dt;
  const T* B;  // [d_state]
  const T* C;  // [d_state]
};

template <typename T>
Step<T> step_at(const SelectiveScanParams<T>& p, int64_t t, int64_t d) {
  const T raw_dt = p.dt[t * p.dt_stride + d] + (p.dt_bias ? p.dt_bias[d] : T(0));
  return {.x = p.x[t * p.x_stride + d],
          .raw_dt = raw_dt,
          .dt = softplus(raw_dt),
          .B = p.B + t * p.b_stride + d / (p.channels / p.b_groups) * p.d_state,
          .C = p.C + t * p.c_stride + d / (p.channels / p.c_groups) * p.d_state};
}

// The states of channel d before each token of the document and after the last:
// [length + 1, d_state].
template <typename T>
std::vector<T> states_of(const SelectiveScanParams<T>& p, int64_t document, int64_t d) {
  const int64_t N = p.d_state, begin = p.starts[document];
  const int64_t length = p.starts[document + 1] - begin;
  std::vector<T> h((length + 1) * N, T(0));
  if (p.initial_state) {
    std::copy_n(p.initial_state + (document * p.channels + d) * N, N, h.begin());
  }
  for (int64_t i = 0; i < length; ++i) {
    const Step<T> s = step_at(p, begin + i, d);
    for (int64_t n = 0; n < N; ++n) {
      h[(i + 1) * N + n] = std::exp(s.dt * p.A[d * N + n]) * h[i * N + n] + s.dt * s.x * s.B[n];
    }
  }
  return h;
}

}  // namespace

template <typename T>
void selective_scan_forward_reference(const SelectiveScanParams<T>& p) {
  const int64_t N = p.d_state;
  for (int64_t document = 0; document < p.documents; ++document) {
    for (int64_t d = 0; d < p.channels; ++d) {
      const std::vector<T> h = states_of(p, document, d);
      const int64_t begin = p.starts[document], end = p.starts[document + 1];
      for (int64_t t = begin; t < end; ++t) {
        const Step<T> s = step_at(p, t, d);
        T y = p.D ? p.D[d] * s.x : T(0);
        for (int64_t n = 0; n < N; ++n) y += h[(t - begin + 1) * N + n] * s.C[n];
        p.y[t * p.channels + d] = y;
      }
      if (p.final_state) {
        const int64_t commit = p.commits ? p.commits[document] : end - begin;
        std::copy_n(h.begin() + commit * N, N, p.final_state + (document * p.channels + d) * N);
      }
    }
  }
}

template <typename T>
void selective_scan_backward_reference(const SelectiveScanBackwardParams<T>& b) {
  const SelectiveScanParams<T>& p = b.forward;
  const int64_t N = p.d_state, tokens = p.starts[p.documents];
  std::fill_n(b.dA, p.channels * N, T(0));
  std::fill_n(b.dB, tokens * p.b_groups * N, T(0));
  std::fill_n(b.dC, tokens * p.c_groups * N, T(0));
  if (p.dt_bias) std::fill_n(b.ddt_bias, p.channels, T(0));
  if (p.D) std::fill_n(b.dD, p.channels, T(0));

  for (int64_t document = 0; document < p.documents; ++document) {
    for (int64_t d = 0; d < p.channels; ++d) {
      const std::vector<T> h = states_of(p, document, d);
      std::vector<T> dh(N, T(0));  // of the state after token t, from later tokens
      const T* A = p.A + d * N;
      const int64_t begin = p.starts[document];
      for (int64_t t = p.starts[document + 1] - 1; t >= begin; --t) {
        const Step<T> s = step_at(p, t, d);
        const T* before = h.data() + (t - begin) * N;
        const T* after = before + N;
        const T dy = b.dy[t * p.channels + d];
        T* dB = b.dB + (t * p.b_groups + d / (p.channels / p.b_groups)) * N;
        T* dC = b.dC + (t * p.c_groups + d / (p.channels / p.c_groups)) * N;
        T ddt = 0, dx = 0;
        for (int64_t n = 0; n < N; ++n) {
          dC[n] += dy * after[n];
          dh[n] += dy * s.C[n];
          const T decay = std::exp(s.dt * A[n]);
          const T d_exponent = dh[n] * decay * before[n];
          b.dA[d * N + n] += d_exponent * s.dt;
          ddt += d_exponent * A[n] + dh[n] * s.x * s.B[n];
          dx += dh[n] * s.dt * s.B[n];
          dB[n] += dh[n] * s.dt * s.x;
          dh[n] *= decay;
        }
        const T ddt_raw = ddt / (1 + std::exp(-s.raw_dt));  // softplus' = sigmoid
        b.ddt[t * p.channels + d] = ddt_raw;
        b.dx[t * p.channels + d] = dx + (p.D ? dy * p.D[d] : T(0));
        if (p.dt_bias) b.ddt_bias[d] += ddt_raw;
        if (p.D) b.dD[d] += dy * s.x;
      }
    }
  }
}

template void selective_scan_forward_reference(const SelectiveScanParams<float>&);
template void selective_scan_forward_reference(const SelectiveScanParams<double>&);
template void selective_scan_backward_reference(const SelectiveScanBackwardParams<float>&);
template void selective_scan_backward_reference(const SelectiveScanBackwardParams<double>&);

}  // namespace mambify::kernels
