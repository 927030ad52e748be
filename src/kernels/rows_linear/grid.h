// Weights on grids as the floats that they stand for.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/rows_linear/panel.h"
#include "kernels/rows_linear/params.h"

namespace mambify::kernels {

template <typename Weight>
inline constexpr bool kIsGrid =
    std::is_same_v<Weight, Grid4Group> || std::is_same_v<Weight, Grid8Group>;

using Signed = int32_t __attribute__((vector_size(kHalf * sizeof(int32_t))));

// The floats of so many half precision numbers, none of which is infinite or NaN. Their exponent is
// shifted to where that of fp32 is, and then put right by a product that is exact.
MAMBIFY_INLINE void load_halves(const uint16_t* halves, Lanes& floats) {
  using Narrow = uint16_t __attribute__((vector_size(kHalf * sizeof(uint16_t))));
  Narrow narrow;
  std::memcpy(&narrow, halves, sizeof(narrow));
  const Words bits = __builtin_convertvector(narrow, Words);
  const Lanes magnitudes = reinterpret_cast<Lanes>((bits & 0x7fffu) << 13) * 0x1p112f;
  floats = reinterpret_cast<Lanes>(reinterpret_cast<Words>(magnitudes) | (bits & 0x8000u) << 16);
}

// Stores weights as a type holds them.
MAMBIFY_INLINE void store_as(const float*, const Lanes& weights, float* place) {
  std::memcpy(place, &weights, sizeof(weights));
}
// The nearest Bf16, ties to even, by two sums: the last place of a number 2^16 times as large is
// where that of a Bf16 is, and that number is even there (after Veltkamp, 1968). However products
// and sums are contracted, there is one rounding. Not for the ends of the exponents, where no grid
// reaches.
MAMBIFY_INLINE void store_as(const Bf16*, const Lanes& weights, float* place) {
  const Lanes large = weights * 65536.0f;
  const Lanes rounded = (large + weights) - large;
  std::memcpy(place, &rounded, sizeof(rounded));
}

// weights: [kGroup, kPanel]. q times a step is exact, so that there is one way to round the sum.
// All but the last of eight codes stay where they are, q times a power of 16, and have a step for
// that.
template <typename Weight>
MAMBIFY_INLINE void expand(const Grid4Group& group, float* weights) {
  constexpr const Weight* kType = nullptr;
  constexpr float kScales[8] = {1, 0x1p-4f, 0x1p-8f, 0x1p-12f, 0x1p-16f, 0x1p-20f, 0x1p-24f, 1};
  for (int64_t half = 0; half < kPanel; half += kHalf) {
    Lanes step, bases, steps[8];
    load_halves(group.steps + half, step);
    load_halves(group.bases + half, bases);
    for (int64_t j = 0; j < 8; ++j) steps[j] = step * kScales[j];
    for (int64_t i = 0; i < kGroup; i += 8) {
      Words codes;
      std::memcpy(&codes, group.codes[i / 8] + half, sizeof(codes));
      for (int64_t j = 0; j < 8; ++j) {
        const Words q = j < 7 ? codes & 15u << 4 * j : codes >> 28;
        const Lanes values =
            __builtin_convertvector(reinterpret_cast<Signed>(q), Lanes) * steps[j] + bases;
        store_as(kType, values, weights + (i + j) * kPanel + half);
      }
    }
  }
}

template <typename Weight>
MAMBIFY_INLINE void expand(const Grid8Group& group, float* weights) {
  using Bytes = int8_t __attribute__((vector_size(kHalf)));
  constexpr const Weight* kType = nullptr;
  for (int64_t half = 0; half < kPanel; half += kHalf) {
    Lanes steps;
    load_halves(group.steps + half, steps);
    for (int64_t i = 0; i < kGroup; ++i) {
      Bytes codes;
      std::memcpy(&codes, group.codes[i] + half, sizeof(codes));
      const Lanes values = __builtin_convertvector(codes, Lanes) * steps;
      store_as(kType, values, weights + i * kPanel + half);
    }
  }
}

}  // namespace mambify::kernels
