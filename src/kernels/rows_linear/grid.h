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

// Rounds weights to what a type holds.
MAMBIFY_INLINE void round_to(const float*, Lanes&) {}
// The nearest Bf16, ties to even, by two sums: the last place of a number 2^16 times as large is
// where that of a Bf16 is, and that number is even there (after Veltkamp, 1968). However products
// and sums are contracted, there is one rounding. Not for the ends of the exponents, where no grid
// reaches.
MAMBIFY_INLINE void round_to(const Bf16*, Lanes& weights) {
  const Lanes large = weights * 65536.0f;
  weights = (large + weights) - large;
}

// Calls use(input, low, high) for each input of a group with its weights, the panel's halves, as
// Weight holds them: codes of so many bits times a step, which is exact, so that there is one way
// to round the sum with the base. All but the last codes of a word stay where they are, as the code
// times a power of two, and have a step for that.
template <int kBits, typename Weight, typename Use>
MAMBIFY_INLINE void for_each_input(const uint32_t (*words)[kPanel], const Lanes (&step)[2],
                                   const Lanes (&bases)[2], const Use& use) {
  constexpr const Weight* kType = nullptr;
  constexpr int kCodes = 32 / kBits;
  constexpr uint32_t kMask = (1u << kBits) - 1;
  Lanes steps[2][kCodes];
  for (int half = 0; half < 2; ++half) {
    for (int j = 0; j < kCodes - 1; ++j) {
      steps[half][j] = step[half] * (1.0f / static_cast<float>(1u << kBits * j));
    }
    steps[half][kCodes - 1] = step[half];
  }
  for (int64_t i = 0; i < kGroup; i += kCodes) {
    Words codes[2];
    std::memcpy(codes, words[i / kCodes], sizeof(codes));
    for (int j = 0; j < kCodes; ++j) {
      Lanes weights[2];
      for (int half = 0; half < 2; ++half) {
        const Words code =
            j < kCodes - 1 ? codes[half] & kMask << kBits * j : codes[half] >> (32 - kBits);
        weights[half] =
            __builtin_convertvector(reinterpret_cast<Signed>(code), Lanes) * steps[half][j] +
            bases[half];
        round_to(kType, weights[half]);
      }
      use(i + j, weights[0], weights[1]);
    }
  }
}

template <typename Weight, typename Use>
MAMBIFY_INLINE void for_each_input(const Grid4Group& group, const Use& use) {
  Lanes steps[2], bases[2];
  for (int half = 0; half < 2; ++half) {
    load_halves(group.steps + half * kHalf, steps[half]);
    load_halves(group.bases + half * kHalf, bases[half]);
  }
  for_each_input<4, Weight>(group.codes, steps, bases, use);
}

template <typename Weight, typename Use>
MAMBIFY_INLINE void for_each_input(const Grid8Group& group, const Use& use) {
  Lanes steps[2], bases[2];
  for (int half = 0; half < 2; ++half) {
    load_halves(group.steps + half * kHalf, steps[half]);
    bases[half] = steps[half] * -128.0f;
  }
  for_each_input<8, Weight>(group.codes, steps, bases, use);
}

}  // namespace mambify::kernels
