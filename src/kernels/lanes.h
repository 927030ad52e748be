// Sums that loops keep in parts, one per vector lane.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/bf16.h"
#include "kernels/simd.h"

namespace mambify::kernels {

// How many parts: one AVX-512 register, two of AVX2.
inline constexpr int64_t kLanes = 16;

using FloatLanes = float __attribute__((vector_size(kLanes * sizeof(float))));

// From kLanes neighbours. Written out because compilers mix the two widths of Bf16 and float in
// ways that cost more than the sums.
MAMBIFY_INLINE void load_lanes(const float* x, FloatLanes& lanes) {
  std::memcpy(&lanes, x, sizeof(lanes));
}
MAMBIFY_INLINE void load_lanes(const Bf16* x, FloatLanes& lanes) {
  using Narrow = uint16_t __attribute__((vector_size(kLanes * sizeof(uint16_t))));
  using Wide = uint32_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));
  Narrow bits;
  std::memcpy(&bits, x, sizeof(bits));
  const Wide shifted = __builtin_convertvector(bits, Wide) << 16;
  std::memcpy(&lanes, &shifted, sizeof(lanes));
}

// Adds the lanes up as a tree. An `omp simd reduction`, which adds them one after the other, takes
// longer than the whole loop where a state has 64 elements, and so does what compilers make of
// this tree in scalars; hence the vector types, which GCC and Clang share.
MAMBIFY_INLINE float sum_lanes(const float* lanes) {
  typedef float Vector8 __attribute__((vector_size(32)));
  typedef float Vector4 __attribute__((vector_size(16)));
  Vector8 low, high;
  std::memcpy(&low, lanes, sizeof(low));
  std::memcpy(&high, lanes + 8, sizeof(high));
  const Vector8 half = low + high;
  const Vector4 quarter = __builtin_shufflevector(half, half, 0, 1, 2, 3) +
                          __builtin_shufflevector(half, half, 4, 5, 6, 7);
  const Vector4 eighth = quarter + __builtin_shufflevector(quarter, quarter, 2, 3, 0, 1);
  return eighth[0] + eighth[1];
}

}  // namespace mambify::kernels
