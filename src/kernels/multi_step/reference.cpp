#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/multi_step/params.h"

namespace mambify::kernels {
namespace {

template <typename T>
T rounded(float x) {
  if constexpr (std::is_same_v<T, Bf16>) {
    const auto bits = std::bit_cast<uint32_t>(x);
    if (std::isnan(x)) return {static_cast<uint16_t>(bits >> 16 | 0x40)};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};  // to nearest even
  } else {
    return x;
  }
}

template <typename T>
float round_to(float x) {
  return to_float(rounded<T>(x));
}

float silu(float x) { return x / (1 + std::exp(-x)); }
float softplus(float x) { return std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x))); }

int64_t place_of(const PassSequence& s, int64_t ring_slots, int64_t position) {
  return s.row * ring_slots + position % ring_slots;
}

// The number of a new token, `step` steps behind the state, in the pass.
int64_t token_of(const PassSequence& s, int64_t step) { return s.first + step - s.pending; }

// One channel of a causal convolution at a position; x(position) is its input.
template <typename T, typename Input>
float convolve(const T* weight, T bias, int64_t d_conv, bool activation, int64_t position,
               const Input& x) {
  float sum = to_float(bias);
  for (int64_t k = 0; k < d_conv; ++k) {
    const int64_t source = position - (d_conv - 1) + k;
    if (source >= 0) sum += to_float(weight[k]) * x(source);
  }
  return round_to<T>(activation ? silu(sum) : sum);
}

template <typename T>
void turn(std::vector<float>& v, const float* cos, const float* sin) {
  const size_t half = v.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    const float first = v[i], second = v[i + half];
    v[i] = round_to<T>(first * cos[i] - second * sin[i]);
    v[i + half] = round_to<T>(second * cos[i] + first * sin[i]);
  }
}

// What head `head` of Mamba-2 reads of one token.
template <typename T>
struct Mamba2Token {
  std::vector<float> x, B, C;
  float dt;

  Mamba2Token(const Mamba2StepParams<T>& p, const PassSequence& s, int64_t position, int64_t head)
      : x(p.head_dim), B(p.d_state), C(p.d_state) {
    const int64_t d_x = p.x_groups * p.head_dim, d_b = p.b_groups * p.d_state;
    const auto input = [&](int64_t at, int64_t channel) {
      return to_float(p.inputs[place_of(s, p.ring_slots, at) * p.input_stride + channel]);
    };
    const auto read = [&](std::vector<float>& part, int64_t offset, int64_t groups) {
      const int64_t width = part.size();
      for (int64_t i = 0; i < width; ++i) {
        const int64_t channel = offset + head / (p.heads / groups) * width + i;
        part[i] =
            convolve(p.conv_weight + channel * p.d_conv, p.conv_bias[channel], p.d_conv,
                     p.conv_activation, position, [&](int64_t at) { return input(at, channel); });
      }
    };
    read(x, 0, p.x_groups);
    read(B, d_x, p.b_groups);
    read(C, d_x + d_b, p.c_groups);
    if (p.cos) {
      const int64_t angles = position * (p.d_state / 2);
      turn<T>(B, p.cos + angles, p.sin + angles);
      turn<T>(C, p.cos + angles, p.sin + angles);
    }
    const float raw = input(position, d_x + d_b + p.c_groups * p.d_state + head);
    dt = std::clamp(softplus(raw + p.dt_bias[head]), p.dt_min, p.dt_max);
  }
};

}  // namespace

template <typename T>
void mamba2_step_reference(const Mamba2StepParams<T>& p) {
  const int64_t P = p.head_dim, N = p.d_state;
  for (int64_t i = 0; i < p.n_sequences; ++i) {
    const PassSequence& s = p.sequences[i];
    for (int64_t head = 0; head < p.heads; ++head) {
      float* state = p.state + (s.row * p.heads + head) * P * N;
      std::vector<float> h(P * N, 0.0f);
      if (s.base > 0) std::copy_n(state, P * N, h.begin());
      for (int64_t step = 0; step < s.pending + s.tokens; ++step) {
        const Mamba2Token<T> token(p, s, s.base + step, head);
        const float decay = std::exp(token.dt * p.A[head]);
        for (int64_t r = 0; r < P; ++r) {
          float y = 0;
          for (int64_t n = 0; n < N; ++n) {
            h[r * N + n] = decay * h[r * N + n] + token.dt * token.x[r] * token.B[n];
            y += h[r * N + n] * token.C[n];
          }
          if (step >= s.pending) {
            p.y[(token_of(s, step) * p.heads + head) * P + r] =
                rounded<T>(p.D[head] * token.x[r] + y);
          }
        }
        if (step + 1 == s.commit) std::copy_n(h.begin(), P * N, state);
      }
    }
  }
}

template <typename T>
void mamba1_step_reference(const Mamba1StepParams<T>& p) {
  const int64_t N = p.d_state, repeats = p.d_inner / p.d_xb;
  for (int64_t i = 0; i < p.n_sequences; ++i) {
    const PassSequence& s = p.sequences[i];
    for (int64_t d = 0; d < p.d_inner; ++d) {
      const int64_t source = d / N / repeats * N + d % N;
      float* state = p.state + (s.row * p.d_inner + d) * N;
      std::vector<float> h(N, 0.0f);
      if (s.base > 0) std::copy_n(state, N, h.begin());
      for (int64_t step = 0; step < s.pending + s.tokens; ++step) {
        const int64_t position = s.base + step, place = place_of(s, p.ring_slots, position);
        const auto x_at = [&](int64_t at) {
          return to_float(p.x[place_of(s, p.ring_slots, at) * p.x_stride + source]);
        };
        const float x = p.convolved != nullptr
                            ? to_float(p.convolved[place * p.convolved_stride + d])
                            : convolve(p.conv_weight + d * p.d_conv, p.conv_bias[d], p.d_conv,
                                       /*activation=*/true, position, x_at);
        const float dt = softplus(to_float(p.dt[place * p.dt_stride + d]) + p.dt_bias[d]);
        const T* B = p.B + place * p.b_stride + d / (p.d_inner / p.b_groups) * N;
        const T* C = p.C + place * p.c_stride + d / (p.d_inner / p.c_groups) * N;
        float y = 0;
        for (int64_t n = 0; n < N; ++n) {
          h[n] = std::exp(dt * p.A[d * N + n]) * h[n] + dt * x * to_float(B[n]);
          y += h[n] * to_float(C[n]);
        }
        if (step >= s.pending) {
          y = round_to<T>(p.D[d] * x + y);
          p.y[token_of(s, step) * p.d_inner + d] =
              rounded<T>(y * silu(to_float(p.z[place * p.z_stride + d])));
        }
        if (step + 1 == s.commit) std::copy_n(h.begin(), N, state);
      }
    }
  }
}

template <typename T>
void conv_step_reference(const ConvStepParams<T>& p) {
  for (int64_t i = 0; i < p.n_sequences; ++i) {
    const PassSequence& s = p.sequences[i];
    for (int64_t step = s.pending; step < s.pending + s.tokens; ++step) {
      for (int64_t c = 0; c < p.channels; ++c) {
        p.y[place_of(s, p.ring_slots, s.base + step) * p.y_stride + c] = rounded<T>(
            convolve(p.weight + c * p.d_conv, p.bias[c], p.d_conv, /*activation=*/true,
                     s.base + step, [&](int64_t at) {
                       return to_float(p.x[place_of(s, p.ring_slots, at) * p.x_stride + c]);
                     }));
      }
    }
  }
}

template void mamba2_step_reference(const Mamba2StepParams<float>&);
template void mamba2_step_reference(const Mamba2StepParams<Bf16>&);
template void mamba1_step_reference(const Mamba1StepParams<float>&);
template void mamba1_step_reference(const Mamba1StepParams<Bf16>&);
template void conv_step_reference(const ConvStepParams<float>&);
template void conv_step_reference(const ConvStepParams<Bf16>&);

}  // namespace mambify::kernels
