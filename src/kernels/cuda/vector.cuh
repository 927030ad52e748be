// Sixteen bytes of a row at a time, and the norm of a row by a block.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace mambify::kernels {

// Elements of T in 16 bytes, as fp32.
template <typename T>
struct Vector {
  static constexpr int kSize = 16 / static_cast<int>(sizeof(T));
  float values[kSize];
};

template <typename T>
__device__ inline Vector<T> unpack(uint4 bytes) {
  Vector<T> v;
  const T* elements = reinterpret_cast<const T*>(&bytes);
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) v.values[i] = as_float(elements[i]);
  return v;
}

template <typename T>
__device__ inline uint4 pack(const Vector<T>& v) {
  uint4 bytes;
  T* elements = reinterpret_cast<T*>(&bytes);
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) elements[i] = rounded<T>(v.values[i]);
  return bytes;
}

// The vector at element `k` of a row of `size`; what is behind its end is zero.
template <typename T>
__device__ inline uint4 load_vector(const T* row, int k, int size) {
  if (k + Vector<T>::kSize <= size) return *reinterpret_cast<const uint4*>(row + k);
  uint4 bytes = make_uint4(0, 0, 0, 0);
  T* elements = reinterpret_cast<T*>(&bytes);
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) {
    if (k + i < size) elements[i] = row[k + i];
  }
  return bytes;
}

// Weights are read once: they need no place in L1.
__device__ inline uint4 load_streamed(const void* address) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(address));
  return v;
}

// Sixteen bytes to shared memory, without waiting for them; copies are awaited in groups.
// Of the sixteen, those behind the first `bytes` are zeros.
__device__ inline void copy_async(void* shared, const void* global, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(global), "r"(bytes));
}
__device__ inline void end_copy_group() { asm volatile("cp.async.commit_group;"); }
// All but the last `kLeft` groups of this thread have arrived.
template <int kLeft>
__device__ inline void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = __fadd_rn(x, __shfl_xor_sync(~0u, x, offset));
  return x;
}

// The squares of a vector, added to a sum.
template <typename T>
__device__ inline float add_squares(uint4 x, float sum) {
  const Vector<T> v = unpack<T>(x);
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) sum = multiply_add(v.values[i], v.values[i], sum);
  return sum;
}

// How a block of kNormThreads computes the norm of a row, wherever it does: thread i adds the
// squares of vectors i, i + kNormThreads, ..., a warp its threads' sums, and `total_of_warps` those
// of the warps, in order.
inline constexpr int kNormThreads = 256, kNormWarps = kNormThreads / 32;
__device__ inline float total_of_warps(const float* sums, int stride) {
  float total = 0;
#pragma unroll
  for (int warp = 0; warp < kNormWarps; ++warp) total = __fadd_rn(total, sums[warp * stride]);
  return total;
}
__device__ inline float inverse_rms(float squares, int size, float eps) {
  return rsqrtf(__fadd_rn(__fdiv_rn(squares, static_cast<float>(size)), eps));
}

// A vector of x * weight.
template <typename T>
__device__ inline uint4 weighted(uint4 x, uint4 weight) {
  Vector<T> v = unpack<T>(x);
  const Vector<T> w = unpack<T>(weight);
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) v.values[i] = __fmul_rn(v.values[i], w.values[i]);
  return pack<T>(v);
}

}  // namespace mambify::kernels
