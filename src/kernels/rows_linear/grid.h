// Weights on grids as the floats that they stand for.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/rows_linear/panel.h"
#include "kernels/rows_linear/params.h"

namespace mambify::kernels {

template <typename Weight>
inline constexpr bool kIsGrid =
    std::is_same_v<Weight, Grid4Group> || std::is_same_v<Weight, Grid8Group>;

// The floats of half precision numbers in the upper halves of words, none of which is infinite or
// NaN. Their exponent is shifted to where that of fp32 is, and then put right by a product that is
// exact.
template <int64_t kWidth>
MAMBIFY_INLINE void load_upper(const typename Register<kWidth>::Words& words,
                               Floats<kWidth>& floats) {
  using Integers = typename Register<kWidth>::Integers;
  const Integers bits = reinterpret_cast<Integers>(words) >> 3 & static_cast<int32_t>(0x8fffe000u);
  floats = reinterpret_cast<Floats<kWidth>>(bits) * 0x1p112f;
}

// What weights are too large by before they are rounded to a type.
constexpr float scale_to_round(const float*) { return 1; }
constexpr float scale_to_round(const Bf16*) { return 0x1p16f; }

// Rounds such weights to what the type holds.
template <int64_t kWidth>
MAMBIFY_INLINE void round_to(const float*, Floats<kWidth>&) {}
// The nearest Bf16, ties to even, by a product and a difference, each rounded: the last place of a
// number 2^16 times as large is where that of a Bf16 is, and that number is even there (after
// Veltkamp, 1968). Not for the ends of the exponents, where no grid reaches.
template <int64_t kWidth>
MAMBIFY_INLINE void round_to(const Bf16*, Floats<kWidth>& large) {
  Floats<kWidth> larger = large * (1 + 0x1p-16f);
  keep_rounded(larger);
  large = larger - large;
}

// Of a type of groups: bits of a code, codes of a word, and words of an output.
template <typename Grid>
inline constexpr int64_t kBits = std::is_same_v<Grid, Grid4Group> ? 4 : 8;
template <typename Grid>
inline constexpr int64_t kCodes = 32 / kBits<Grid>;
template <typename Grid>
inline constexpr int64_t kWords = kGroup / kCodes<Grid>;

// What the codes of a group are multiplied by and added to, for kSpan registers of the panel. A
// code need not be shifted down before it becomes a float: where it stands, it is larger by a power
// of two, and a step that is smaller by as much makes the same product. There are steps for kPlaces
// places of a code in a word, in memory, since operands from there are free and registers are few.
template <int64_t kWidth, int64_t kSpan, int64_t kPlaces>
struct Scales {
  alignas(64) float steps[kPlaces][kSpan * kWidth];
  Floats<kWidth> bases[kSpan];
};

template <typename Grid, int64_t kWidth, int64_t kSpan, int64_t kPlaces>
MAMBIFY_INLINE void keep_scales(int64_t r, const Floats<kWidth>& step, const Floats<kWidth>& base,
                                Scales<kWidth, kSpan, kPlaces>& scales) {
  for (int64_t place = 0; place < kPlaces; ++place) {
    store_register<kWidth>(step * (1.0f / static_cast<float>(1 << kBits<Grid> * place)),
                           scales.steps[place] + r * kWidth);
  }
  scales.bases[r] = base;
}

// The scales from register `first` on of the weights, as large as round_to takes them.
template <typename Weight, int64_t kWidth, int64_t kSpan, int64_t kPlaces>
MAMBIFY_INLINE void load_scales(const Grid4Group& group, int64_t first,
                                Scales<kWidth, kSpan, kPlaces>& scales) {
  constexpr float kScale = scale_to_round(static_cast<const Weight*>(nullptr));
  for (int64_t r = 0; r < kSpan; ++r) {
    typename Register<kWidth>::Words words;
    load_register<kWidth>(group.scales + (first + r) * kWidth, words);
    Floats<kWidth> step, base;
    load_upper<kWidth>(words << 16, step);
    load_upper<kWidth>(words, base);
    keep_scales<Grid4Group, kWidth>(r, step * kScale, base * kScale, scales);
  }
}
template <typename Weight, int64_t kWidth, int64_t kSpan, int64_t kPlaces>
MAMBIFY_INLINE void load_scales(const Grid8Group& group, int64_t first,
                                Scales<kWidth, kSpan, kPlaces>& scales) {
  constexpr float kScale = scale_to_round(static_cast<const Weight*>(nullptr));
  for (int64_t r = 0; r < kSpan; ++r) {
    const int64_t output = (first + r) * kWidth;
    typename Register<kWidth>::Words words;
    load_register<kWidth>(group.steps + output % kHalf, words);
    Floats<kWidth> step;
    load_upper<kWidth>(output < kHalf ? words << 16 : words, step);
    keep_scales<Grid8Group, kWidth>(r, step * kScale, step * (kScale * -128.0f), scales);
  }
}

// The bits of a code in each of its places in a word, for a register.
template <typename Grid, int64_t kWidth>
struct Masks {
  constexpr Masks() {
    for (int64_t place = 0; place < kCodes<Grid>; ++place) {
      for (uint32_t& word : words[place]) {
        word = ((1u << kBits<Grid>)-1) << kBits<Grid> * place;
      }
    }
  }
  alignas(64) uint32_t words[kCodes<Grid>][kWidth] = {};
};
template <typename Grid, int64_t kWidth>
inline constexpr Masks<Grid, kWidth> kMasks;

// Makes a compiler read anew what p points to, which it would keep in registers that sums need.
template <typename T>
MAMBIFY_INLINE const T* read_anew(const T* p) {
  asm("" : "+r"(p));
  return p;
}

// Calls use(i, weights) for each input i of a word of a group, with the weights in kSpan registers
// of the panel from `first` on as Weight holds them. A code times the step is exact, so that there
// is one way to round its sum with the base.
template <typename Weight, int64_t kWidth, int64_t kSpan, int64_t kPlaces, typename Grid,
          typename Use>
MAMBIFY_INLINE void for_each_input(const Grid& group, int64_t word, int64_t first,
                                   const Scales<kWidth, kSpan, kPlaces>& scales, const Use& use) {
  using Integers = typename Register<kWidth>::Integers;
  constexpr const Weight* kType = nullptr;
  const auto* steps = &scales.steps;
  const auto* masks = &kMasks<Grid, kWidth>.words;
  if (kPlaces > 1) {
    steps = read_anew(steps);
    masks = read_anew(masks);
  }
  typename Register<kWidth>::Words codes[kSpan];
  for (int64_t r = 0; r < kSpan; ++r) {
    load_register<kWidth>(group.codes[word] + (first + r) * kWidth, codes[r]);
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < kCodes<Grid>; ++i) {
    // The last is shifted anyway: where it stands, its highest bit would be a sign.
    const bool is_last = i == kCodes<Grid> - 1;
    const int64_t place = is_last ? 0 : i % kPlaces;
    typename Register<kWidth>::Words mask;
    load_register<kWidth>((*masks)[place], mask);
    Floats<kWidth> weights[kSpan];
    for (int64_t r = 0; r < kSpan; ++r) {
      const auto shifted = codes[r] >> kBits<Grid> * (i - place);
      const auto code = reinterpret_cast<Integers>(is_last ? shifted : shifted & mask);
      Floats<kWidth> step;
      load_register<kWidth>((*steps)[place] + r * kWidth, step);
      weights[r] = __builtin_convertvector(code, Floats<kWidth>) * step + scales.bases[r];
      round_to<kWidth>(kType, weights[r]);
      keep_rounded(weights[r]);  // it is made at once: put off, several wait for registers
    }
    use(i, weights);
  }
}

}  // namespace mambify::kernels
