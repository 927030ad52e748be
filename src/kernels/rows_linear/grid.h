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

// The floats of so many half precision numbers, none of which is infinite or NaN. Their exponent is
// shifted to where that of fp32 is, and then put right by a product that is exact.
template <int kWidth>
MAMBIFY_INLINE void load_halves(const uint16_t* halves, Floats<kWidth>& floats) {
  using Words = typename Register<kWidth>::Words;
  typename Register<kWidth>::Halves narrow;
  std::memcpy(&narrow, halves, sizeof(narrow));
  const Words bits = __builtin_convertvector(narrow, Words);
  const Floats<kWidth> magnitudes =
      reinterpret_cast<Floats<kWidth>>((bits & 0x7fffu) << 13) * 0x1p112f;
  floats = reinterpret_cast<Floats<kWidth>>(reinterpret_cast<Words>(magnitudes) | (bits & 0x8000u)
                                                                                      << 16);
}

// Rounds weights to what a type holds.
template <int kWidth>
MAMBIFY_INLINE void round_to(const float*, Floats<kWidth>&) {}
// The nearest Bf16, ties to even, by two sums: the last place of a number 2^16 times as large is
// where that of a Bf16 is, and that number is even there (after Veltkamp, 1968). However products
// and sums are contracted, there is one rounding. Not for the ends of the exponents, where no grid
// reaches.
template <int kWidth>
MAMBIFY_INLINE void round_to(const Bf16*, Floats<kWidth>& weights) {
  const Floats<kWidth> large = weights * 65536.0f;
  weights = (large + weights) - large;
}

// Calls use(input, weights) for each input of a group with its weights, kSpan registers of the
// panel from `first` on, as Weight holds them. A code times the step is exact, so that there is one
// way to round its sum with the base.
template <int kWidth, int kSpan, int kBits, typename Weight, typename Use>
MAMBIFY_INLINE void for_each_input(const uint32_t (*words)[kPanel], int first,
                                   const Floats<kWidth> (&steps)[kSpan],
                                   const Floats<kWidth> (&bases)[kSpan], const Use& use) {
  using Words = typename Register<kWidth>::Words;
  using Integers = typename Register<kWidth>::Integers;
  constexpr const Weight* kType = nullptr;
  constexpr int kCodes = 32 / kBits;
  for (int64_t i = 0; i < kGroup; i += kCodes) {
    Words codes[kSpan];
    for (int r = 0; r < kSpan; ++r) {
      std::memcpy(&codes[r], words[i / kCodes] + (first + r) * kWidth, sizeof(Words));
    }
#pragma GCC unroll 8
    for (int j = 0; j < kCodes; ++j) {
      Floats<kWidth> weights[kSpan];
      for (int r = 0; r < kSpan; ++r) {
        const auto code = reinterpret_cast<Integers>(codes[r] & ((1u << kBits) - 1));
        codes[r] >>= kBits;
        weights[r] = __builtin_convertvector(code, Floats<kWidth>) * steps[r] + bases[r];
        round_to<kWidth>(kType, weights[r]);
      }
      use(i + j, weights);
    }
  }
}

template <int kWidth, int kSpan, typename Weight, typename Use>
MAMBIFY_INLINE void for_each_input(const Grid4Group& group, int first, const Use& use) {
  Floats<kWidth> steps[kSpan], bases[kSpan];
  for (int r = 0; r < kSpan; ++r) {
    load_halves<kWidth>(group.steps + (first + r) * kWidth, steps[r]);
    load_halves<kWidth>(group.bases + (first + r) * kWidth, bases[r]);
  }
  for_each_input<kWidth, kSpan, 4, Weight>(group.codes, first, steps, bases, use);
}

template <int kWidth, int kSpan, typename Weight, typename Use>
MAMBIFY_INLINE void for_each_input(const Grid8Group& group, int first, const Use& use) {
  Floats<kWidth> steps[kSpan], bases[kSpan];
  for (int r = 0; r < kSpan; ++r) {
    load_halves<kWidth>(group.steps + (first + r) * kWidth, steps[r]);
    bases[r] = steps[r] * -128.0f;
  }
  for_each_input<kWidth, kSpan, 8, Weight>(group.codes, first, steps, bases, use);
}

}  // namespace mambify::kernels
