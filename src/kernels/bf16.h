// A bfloat16 as it lies in memory.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/simd.h"

namespace mambify::kernels {

struct Bf16 {
  uint16_t bits;
};

// What numbers of a type are computed with.
template <typename T>
struct ComputedWith {
  using Type = T;
};
template <>
struct ComputedWith<Bf16> {
  using Type = float;
};
template <typename T>
using Computed = typename ComputedWith<T>::Type;

MAMBIFY_INLINE float to_float(float x) { return x; }
MAMBIFY_INLINE float to_float(Bf16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

// place = x, rounded to the nearest, ties to even; NaN stays NaN.
MAMBIFY_INLINE void store(float x, float& place) { place = x; }
MAMBIFY_INLINE void store(float x, Bf16& place) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  place.bits = static_cast<uint16_t>(x == x ? rounded : 0x7fc0u);
}

}  // namespace mambify::kernels
