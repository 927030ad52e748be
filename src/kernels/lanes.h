// Sums that loops keep in parts, one per vector lane.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/simd.h"

namespace mambify::kernels {

// How many parts: one AVX-512 register, two of AVX2.
inline constexpr int64_t kLanes = 16;

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
