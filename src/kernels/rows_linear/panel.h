// The outputs of a panel as two vectors, each one register of AVX-512 or two of AVX2.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/rows_linear/params.h"
#include "kernels/simd.h"

namespace mambify::kernels {

inline constexpr int64_t kHalf = kPanel / 2;

using Lanes = float __attribute__((vector_size(kHalf * sizeof(float))));
using Words = uint32_t __attribute__((vector_size(kHalf * sizeof(float))));

// One value for each output, in the places of place_in_panel.
MAMBIFY_INLINE void load_panel(const float* packed, Lanes& low, Lanes& high) {
  std::memcpy(&low, packed, sizeof(Lanes));
  std::memcpy(&high, packed + kHalf, sizeof(Lanes));
}

MAMBIFY_INLINE void load_panel(const Bf16* packed, Lanes& low, Lanes& high) {
  Words pairs;
  std::memcpy(&pairs, packed, sizeof(Words));
  const Words shifted = pairs << 16, masked = pairs & 0xffff0000u;
  std::memcpy(&low, &shifted, sizeof(Lanes));
  std::memcpy(&high, &masked, sizeof(Lanes));
}

MAMBIFY_INLINE void store_panel(const Lanes& low, const Lanes& high, float* y) {
  std::memcpy(y, &low, sizeof(Lanes));
  std::memcpy(y + kHalf, &high, sizeof(Lanes));
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
