// Sums that loops keep in parts, one per vector lane.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/bf16.h"
#include "kernels/simd.h"

namespace mambify::kernels {

// How many parts: one register of AVX-512, two of AVX2.
inline constexpr int64_t kLanes = 16;

// What a register of kWidth numbers of 32 bits holds. Kernels take the width that their instruction
// set has: a wider vector type, which compilers accept, goes through memory at each operation.
template <int64_t kWidth>
struct Register {  // typedef: GCC ignores the attribute in a `using` that depends on a parameter
  typedef float Floats __attribute__((vector_size(kWidth * sizeof(float))));
  typedef uint32_t Words __attribute__((vector_size(kWidth * sizeof(uint32_t))));
  typedef int32_t Integers __attribute__((vector_size(kWidth * sizeof(int32_t))));
  typedef uint16_t Halves __attribute__((vector_size(kWidth * sizeof(uint16_t))));
  // As they lie in memory, at any place.
  typedef float FloatsThere
      __attribute__((vector_size(kWidth * sizeof(float)), aligned(4), may_alias));
  typedef uint32_t WordsThere
      __attribute__((vector_size(kWidth * sizeof(uint32_t)), aligned(4), may_alias));
};

// kWidth neighbours. Not by memcpy: where an array receives them, GCC copies halves, and a
// processor waits before it reads what two stores wrote. Bf16 is written out because compilers mix
// its width with that of float in ways that cost more than the sums.
template <int64_t kWidth>
MAMBIFY_INLINE void load_register(const float* x, typename Register<kWidth>::Floats& floats) {
  floats = *reinterpret_cast<const typename Register<kWidth>::FloatsThere*>(x);
}
template <int64_t kWidth>
MAMBIFY_INLINE void load_register(const uint32_t* x, typename Register<kWidth>::Words& words) {
  words = *reinterpret_cast<const typename Register<kWidth>::WordsThere*>(x);
}
template <int64_t kWidth>
MAMBIFY_INLINE void load_register(const Bf16* x, typename Register<kWidth>::Floats& floats) {
  using Words = typename Register<kWidth>::Words;
  typename Register<kWidth>::Halves bits;
  std::memcpy(&bits, x, sizeof(bits));
  Words words;
#if defined(__x86_64__) && !defined(__clang__)
  if constexpr (kWidth == 8) {  // GCC converts halves and joins them
    asm("vpmovzxwd %1, %0" : "=x"(words) : "m"(bits));
  } else
#endif
  {
    words = __builtin_convertvector(bits, Words);
  }
  floats = reinterpret_cast<typename Register<kWidth>::Floats>(words << 16);
}
template <int64_t kWidth>
MAMBIFY_INLINE void store_register(const typename Register<kWidth>::Floats& floats, float* y) {
  *reinterpret_cast<typename Register<kWidth>::FloatsThere*>(y) = floats;
}

// Keeps compilers from contracting a product with a sum: it is rounded by itself.
template <typename Floats>
MAMBIFY_INLINE void keep_rounded(Floats& product) {
#if defined(__x86_64__) && !defined(__clang__)
  asm("" : "+v"(product));
#else  // Clang wants to know here that the instruction set has such registers
  asm("" : "+m"(product));
#endif
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
