// A panel's outputs as registers of kWidth floats: two with AVX-512, four with AVX2.
#pragma once

#include <cstdint>

#include "kernels/lanes.h"
#include "kernels/rows_linear/params.h"

namespace mambify::kernels {

template <int64_t kWidth>
using Floats = typename Register<kWidth>::Floats;

inline constexpr int64_t kHalf = kPanel / 2;
template <int64_t kWidth>
inline constexpr int64_t kRegistersOfPanel = kPanel / kWidth;

// Registers go in pairs, as one load of Bf16 weights makes two. Which outputs those of a pair start
// at; the first argument chooses the type.
template <int64_t kWidth>
inline constexpr int64_t kPairsOfPanel = kRegistersOfPanel<kWidth> / 2;
template <int64_t kWidth>
constexpr int64_t place_in_pair(const float*, int64_t pair, int64_t second) {
  return (2 * pair + second) * kWidth;
}
template <int64_t kWidth>
constexpr int64_t place_in_pair(const Bf16*, int64_t pair, int64_t second) {
  return pair * kWidth + second * kHalf;
}

// One value for each output of a pair, in the places of place_in_panel.
template <int64_t kWidth>
MAMBIFY_INLINE void load_pair(const float* packed, int64_t pair, Floats<kWidth> (&floats)[2]) {
  load_register<kWidth>(packed + 2 * pair * kWidth, floats[0]);
  load_register<kWidth>(packed + (2 * pair + 1) * kWidth, floats[1]);
}
template <int64_t kWidth>
MAMBIFY_INLINE void load_pair(const Bf16* packed, int64_t pair, Floats<kWidth> (&floats)[2]) {
  typename Register<kWidth>::Words words;
  load_register<kWidth>(reinterpret_cast<const uint32_t*>(packed + 2 * pair * kWidth), words);
  floats[0] = reinterpret_cast<Floats<kWidth>>(words << 16);
  floats[1] = reinterpret_cast<Floats<kWidth>>(words & 0xffff0000u);
}

// A panel's sums to where the outputs are that it has.
template <typename Value>
MAMBIFY_INLINE void store_outputs(const float* sums, int64_t outputs, Value* y) {
  if (outputs == kPanel) {
    for (int64_t j = 0; j < kPanel; ++j) store(sums[j], y[j]);
  } else {
    for (int64_t j = 0; j < outputs; ++j) store(sums[j], y[j]);
  }
}

}  // namespace mambify::kernels
