// Neighbouring elements of a row, read and written in one access of up to 16 bytes, and what
// kernels of training do with them.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace mambify::kernels {

template <int kBytes>
struct BitsOf;
template <>
struct BitsOf<2> {
  using Type = uint16_t;
};
template <>
struct BitsOf<4> {
  using Type = uint32_t;
};
template <>
struct BitsOf<8> {
  using Type = uint2;
};
template <>
struct BitsOf<16> {
  using Type = uint4;
};

// As fp32.
template <int kCount>
struct Elements {
  float values[kCount];
  __device__ float& operator[](int i) { return values[i]; }
  __device__ float operator[](int i) const { return values[i]; }
};

// As they lie in memory.
template <typename T, int kCount>
using ElementBits = typename BitsOf<kCount* static_cast<int>(sizeof(T))>::Type;

template <typename T, int kCount>
__device__ inline Elements<kCount> elements_of(ElementBits<T, kCount> bits) {
  const T* elements = reinterpret_cast<const T*>(&bits);
  Elements<kCount> result;
#pragma unroll
  for (int i = 0; i < kCount; ++i) result[i] = as_float(elements[i]);
  return result;
}

// The address is a multiple of the elements' bytes.
template <int kCount, typename T>
__device__ inline Elements<kCount> load_elements(const T* address) {
  return elements_of<T, kCount>(*reinterpret_cast<const ElementBits<T, kCount>*>(address));
}

template <int kCount, typename T>
__device__ inline void store_elements(const Elements<kCount>& elements, T* address) {
  using Bits = typename BitsOf<kCount* static_cast<int>(sizeof(T))>::Type;
  Bits bits;
  T* narrow = reinterpret_cast<T*>(&bits);
#pragma unroll
  for (int i = 0; i < kCount; ++i) narrow[i] = rounded<T>(elements[i]);
  *reinterpret_cast<ElementBits<T, kCount>*>(address) = bits;
}

// 1 / (1 + e^-x), without the branches of an exact division.
__device__ inline float sigmoid(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1.0f + fast_exp2(x * -kLog2E)));
  return y;
}

// d silu / dx, given s = sigmoid(x).
__device__ inline float silu_gradient(float x, float s) { return s * (1.0f + x * (1.0f - s)); }

// Elements of T in 16 bytes.
template <typename T>
inline constexpr int kVectorSize = 16 / static_cast<int>(sizeof(T));

// Whether rows that begin at `data`, `stride` elements apart, can be read `count` elements at a
// time. No data is fine.
template <typename T>
inline bool in_vectors(const T* data, int64_t stride, int count) {
  return data == nullptr ||
         (reinterpret_cast<uintptr_t>(data) % (count * sizeof(T)) == 0 && stride % count == 0);
}

// The document of a token: the last one that starts at or before it. starts: [documents + 1].
__device__ inline int document_of(const int32_t* starts, int documents, int token) {
  int first = 0, last = documents;  // starts[first] <= token < starts[last]
  while (last - first > 1) {
    const int middle = (first + last) / 2;
    (starts[middle] <= token ? first : last) = middle;
  }
  return first;
}

}  // namespace mambify::kernels
