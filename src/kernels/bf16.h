// A bfloat16 as it lies in memory.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/simd.h"

namespace mambify::kernels {

struct Bf16 {
  uint16_t bits;
};

MAMBIFY_INLINE float to_float(float x) { return x; }
MAMBIFY_INLINE float to_float(Bf16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

}  // namespace mambify::kernels
