// Elementary functions without branches or calls, so that loops over them vectorise. Every one
// passes NaN on. Errors are against the exact value, over all finite arguments (math_test checks).
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/simd.h"

namespace mambify::kernels {

// e^x, relative error below 2e-7; 0 below -87.33, infinity above 88.37.
// Range reduction to [-ln2/2, ln2/2] and the polynomial of Cephes' expf.
MAMBIFY_INLINE float fast_exp(float x) {
  constexpr float kLowest = -87.33f, kHighest = 88.8f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  // Written so that NaN fails the comparison and stays.
  float clamped = x < kLowest ? kLowest : x;
  clamped = clamped > kHighest ? kHighest : clamped;
  const float shifted = clamped * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  float r = clamped - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const uint32_t exponent = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRound);
  const float result = p * std::bit_cast<float>((exponent + 127u) << 23);
  return x < kLowest ? 0.0f : result;
}

// 1 / (1 + e^-x), relative error below 4e-7 where the result is a normal number.
MAMBIFY_INLINE float fast_sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

// x * sigmoid(x); the same relative error.
MAMBIFY_INLINE float fast_silu(float x) { return x * fast_sigmoid(x); }

// d silu / dx = s (1 + x (1 - s)) with s = sigmoid(x); absolute error below 1e-6.
MAMBIFY_INLINE float fast_silu_gradient(float x) {
  const float s = fast_sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}

// log(1 + e^x), relative error below 5e-7 down to the smallest normal result.
// log1p(u) = 2 atanh(u / (2 + u)), whose series converges fast for u = e^-|x| in (0, 1].
MAMBIFY_INLINE float fast_softplus(float x) {
  const float magnitude = x < 0.0f ? -x : x;
  const float u = fast_exp(-magnitude);
  const float s = u / (2.0f + u);
  const float q = s * s;
  float p = 1.0f / 13.0f;
  p = p * q + 1.0f / 11.0f;
  p = p * q + 1.0f / 9.0f;
  p = p * q + 1.0f / 7.0f;
  p = p * q + 1.0f / 5.0f;
  p = p * q + 1.0f / 3.0f;
  p = p * q + 1.0f;
  return (x < 0.0f ? 0.0f : x) + 2.0f * s * p;
}

}  // namespace mambify::kernels
