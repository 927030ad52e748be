#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "kernels/pass_attention/params.h"

namespace mambify::kernels {
namespace {

float stored(float x, float) { return x; }

// To nearest even; no number here is a NaN.
Bf16 stored(float x, Bf16) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// A head of one token, turned by its position's angles. In fp32, rounded as the kernel rounds, so
// that the caches are the same bits.
template <typename T>
std::vector<T> turned(const PassAttentionParams<T>& p, const T* x, int64_t position) {
  const int64_t half = p.head_dim / 2;
  const float* cos = p.cos + position * half;
  const float* sin = p.sin + position * half;
  std::vector<T> y(p.head_dim);
  for (int64_t i = 0; i < half; ++i) {
    const float first = to_float(x[i]), second = to_float(x[i + half]);
    y[i] = stored(std::fma(first, cos[i], -(second * sin[i])), T{});
    y[i + half] = stored(std::fma(second, cos[i], first * sin[i]), T{});
  }
  return y;
}

// One query head over `positions` of the cache. q, y: [head_dim]; keys, values: [positions,
// head_dim].
template <typename T>
void attend(const T* q, const T* keys, const T* values, int64_t positions, int64_t head_dim,
            double scale, T* y) {
  std::vector<double> weights(positions, 0.0);
  for (int64_t t = 0; t < positions; ++t) {
    for (int64_t i = 0; i < head_dim; ++i) {
      weights[t] += double(to_float(q[i])) * to_float(keys[t * head_dim + i]);
    }
    weights[t] *= scale;
  }
  const double most = *std::max_element(weights.begin(), weights.end());
  double total = 0;
  for (double& weight : weights) total += weight = std::exp(weight - most);
  std::vector<double> sums(head_dim, 0.0);
  for (int64_t t = 0; t < positions; ++t) {
    for (int64_t i = 0; i < head_dim; ++i) {
      sums[i] += weights[t] * to_float(values[t * head_dim + i]);
    }
  }
  for (int64_t i = 0; i < head_dim; ++i) y[i] = stored(static_cast<float>(sums[i] / total), T{});
}

// One token of a sequence: its keys and values first, then every query head.
template <typename T>
void read_token(const PassAttentionParams<T>& p, int64_t row, int64_t token, int64_t position) {
  const T* queries = p.qkv + token * (p.heads + 2 * p.kv_heads) * p.head_dim;
  const T* keys = queries + p.heads * p.head_dim;
  const T* values = keys + p.kv_heads * p.head_dim;
  const auto cached = [&](T* cache, int64_t g) {
    return cache + (row * p.kv_heads + g) * p.capacity * p.head_dim;
  };
  for (int64_t g = 0; g < p.kv_heads; ++g) {
    const std::vector<T> key = turned(p, keys + g * p.head_dim, position);
    std::copy(key.begin(), key.end(), cached(p.keys, g) + position * p.head_dim);
    std::copy_n(values + g * p.head_dim, p.head_dim, cached(p.values, g) + position * p.head_dim);
  }
  for (int64_t h = 0; h < p.heads; ++h) {
    const int64_t g = h / (p.heads / p.kv_heads);
    attend(turned(p, queries + h * p.head_dim, position).data(), cached(p.keys, g),
           cached(p.values, g), position + 1, p.head_dim, p.scale,
           p.y + (token * p.heads + h) * p.head_dim);
  }
}

}  // namespace

template <typename T>
void pass_attention_reference(const PassAttentionParams<T>& p) {
  for (int64_t s = 0; s < p.n_sequences; ++s) {
    const PassSequence& sequence = p.sequences[s];
    for (int64_t i = 0; i < sequence.tokens; ++i) {
      read_token(p, sequence.row, sequence.first + i, sequence.base + sequence.pending + i);
    }
  }
}

template void pass_attention_reference(const PassAttentionParams<float>&);
template void pass_attention_reference(const PassAttentionParams<Bf16>&);

}  // namespace mambify::kernels
