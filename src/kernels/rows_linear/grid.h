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
template <int64_t kWidth>
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
template <int64_t kWidth>
MAMBIFY_INLINE void round_to(const float*, Floats<kWidth>&) {}
// The nearest Bf16, ties to even, by two sums: the last place of a number 2^16 times as large is
// where that of a Bf16 is, and that number is even there (after Veltkamp, 1968). However products
// and sums are contracted, there is one rounding. Not for the ends of the exponents, where no grid
// reaches.
template <int64_t kWidth>
MAMBIFY_INLINE void round_to(const Bf16*, Floats<kWidth>& weights) {
  const Floats<kWidth> large = weights * 65536.0f;
  weights = (large + weights) - large;
}

// Of a type of groups: bits of a code, codes of a word, and words of an output.
template <typename Grid>
inline constexpr int64_t kBits = std::is_same_v<Grid, Grid4Group> ? 4 : 8;
template <typename Grid>
inline constexpr int64_t kCodes = 32 / kBits<Grid>;
template <typename Grid>
inline constexpr int64_t kWords = kGroup / kCodes<Grid>;

// What the codes of a group are multiplied by and added to, for all outputs of the panel.
template <int64_t kWidth>
struct Scales {
  Floats<kWidth> steps[kRegistersOfPanel<kWidth>], bases[kRegistersOfPanel<kWidth>];
};
template <int64_t kWidth>
MAMBIFY_INLINE void load_scales(const Grid4Group& group, Scales<kWidth>& scales) {
  for (int64_t r = 0; r < kRegistersOfPanel<kWidth>; ++r) {
    load_halves<kWidth>(group.steps + r * kWidth, scales.steps[r]);
    load_halves<kWidth>(group.bases + r * kWidth, scales.bases[r]);
  }
}
template <int64_t kWidth>
MAMBIFY_INLINE void load_scales(const Grid8Group& group, Scales<kWidth>& scales) {
  for (int64_t r = 0; r < kRegistersOfPanel<kWidth>; ++r) {
    load_halves<kWidth>(group.steps + r * kWidth, scales.steps[r]);
    scales.bases[r] = scales.steps[r] * -128.0f;
  }
}

// Calls use(i, weights) for each input i of a word of a group with its weights, kSpan registers of
// the panel from `first` on, as Weight holds them. A code times the step is exact, so that there is
// one way to round its sum with the base.
template <int64_t kWidth, int64_t kSpan, typename Weight, typename Grid, typename Use>
MAMBIFY_INLINE void for_each_input(const Grid& group, int64_t word, int64_t first,
                                   const Scales<kWidth>& scales, const Use& use) {
  using Integers = typename Register<kWidth>::Integers;
  constexpr const Weight* kType = nullptr;
  typename Register<kWidth>::Words codes[kSpan];
  Floats<kWidth> steps[kSpan], bases[kSpan];
  for (int64_t r = 0; r < kSpan; ++r) {
    std::memcpy(&codes[r], group.codes[word] + (first + r) * kWidth, sizeof(codes[r]));
    steps[r] = scales.steps[first + r];
    bases[r] = scales.bases[first + r];
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < kCodes<Grid>; ++i) {
    Floats<kWidth> weights[kSpan];
    for (int64_t r = 0; r < kSpan; ++r) {
      const auto code = reinterpret_cast<Integers>(codes[r] & ((1u << kBits<Grid>)-1));
      codes[r] >>= kBits<Grid>;
      weights[r] = __builtin_convertvector(code, Floats<kWidth>) * steps[r] + bases[r];
      round_to<kWidth>(kType, weights[r]);
    }
    use(i, weights);
  }
}

}  // namespace mambify::kernels
