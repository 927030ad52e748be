// Products of matrices in shared memory, a part of the result in each warp's registers: on tensor
// cores in bf16, by multiply-adds in fp32, so that a kernel is written once for both.
#pragma once

#include <type_traits>

#include "kernels/cuda/vector.cuh"

namespace mambify::kernels {

// Elements from one row of `width` to the next in shared memory, so that neighbouring rows lie in
// different banks.
template <typename T>
__host__ __device__ constexpr int pitch_of(int width) {
  return width + 16 / static_cast<int>(sizeof(T));
}

// A factor. `outer` counts what its products have rows or columns of, `k` what they sum over:
// element (outer, k) is at outer * kPitch + k or, kAcross, at k * kPitch + outer.
template <typename T, int kPitch, bool kAcross>
struct Factor {
  const T* data;

  __device__ Factor operator+(int outer) const {
    return {data + (kAcross ? outer : outer * kPitch)};
  }
  __device__ float at(int outer, int k) const {
    return as_float(kAcross ? data[k * kPitch + outer] : data[outer * kPitch + k]);
  }
};
template <int kWidth, typename T>
__device__ inline Factor<T, pitch_of<T>(kWidth), false> along(const T* data) {
  return {data};
}
template <int kWidth, typename T>
__device__ inline Factor<T, pitch_of<T>(kWidth), true> across(const T* data) {
  return {data};
}

// 16 kRows x 8 kColumns numbers of a warp. Lane 4 g + t has columns 8 j + 2 t and 8 j + 2 t + 1 of
// rows 16 m + g and 16 m + g + 8, in this order, in at[m][j].
template <int kRows, int kColumns>
struct Fragment {
  float at[kRows][kColumns][4] = {};

  static __device__ int lane_row() { return threadIdx.x % 32 / 4; }
  static __device__ int lane_column() { return threadIdx.x % 4 * 2; }

  // f(r, j, row, column, first, second) for each pair of neighbours of this lane, the r-th of its
  // 2 kRows rows and the j-th of its kColumns pairs in a row.
  template <typename F>
  __device__ void each_pair(const F& f) {
#pragma unroll
    for (int r = 0; r < 2 * kRows; ++r) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        float* pair = at[r / 2][j] + r % 2 * 2;
        f(r, j, lane_row() + 8 * r, lane_column() + 8 * j, pair[0], pair[1]);
      }
    }
  }
};

__device__ inline uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
template <bool kTransposed>
__device__ inline void load_matrices(uint32_t (&m)[4], const void* row) {
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row)));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row)));
  }
}
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline uint32_t packed(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return reinterpret_cast<const uint32_t&>(pair);
}
__device__ inline float2 unpacked(uint32_t pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}
__device__ inline uint32_t scaled(uint32_t pair, float2 by) {
  const float2 values = unpacked(pair);
  return packed(__fmul_rn(values.x, by.x), __fmul_rn(values.y, by.y));
}

// Neighbours in shared or global memory.
__device__ inline float2 load_pair(const float* at) { return *reinterpret_cast<const float2*>(at); }
__device__ inline float2 load_pair(const Bf16* at) {
  return unpacked(*reinterpret_cast<const uint32_t*>(at));
}
__device__ inline void store_pair(float* at, float first, float second) {
  *reinterpret_cast<float2*>(at) = make_float2(first, second);
}
__device__ inline void store_pair(Bf16* at, float first, float second) {
  *reinterpret_cast<uint32_t*>(at) = packed(first, second);
}

struct Unweighted {};

// c += sum over k of [begin, end) of a(row, k) b(column, k), with k of a weighted by weights[k]
// when they are given (const float*, shared). begin and end, multiples of 16, lie in [0, kSum].
template <int kSum, int kRows, int kColumns, int kPitchA, bool kAcrossA, int kPitchB, bool kAcrossB,
          typename Weights = Unweighted>
__device__ inline void multiply(Fragment<kRows, kColumns>& c, Factor<Bf16, kPitchA, kAcrossA> a,
                                Factor<Bf16, kPitchB, kAcrossB> b, int begin = 0, int end = kSum,
                                Weights weights = {}) {
  static_assert(kColumns % 2 == 0 && kSum % 16 == 0);
  const int lane = threadIdx.x % 32, row = lane % 8, second = lane / 8 % 2 * 8,
            third = lane / 16 * 8;
  const Bf16* from_a =
      a.data + (kAcrossA ? (row + third) * kPitchA + second : (row + second) * kPitchA + third);
  const Bf16* from_b =
      b.data + (kAcrossB ? (row + second) * kPitchB + third : (row + third) * kPitchB + second);
#pragma unroll
  for (int k = 0; k < kSum; k += 16) {
    if (k < begin || k >= end) continue;
    uint32_t of_a[kRows][4];
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      load_matrices<kAcrossA>(of_a[m],
                              from_a + (kAcrossA ? k * kPitchA + 16 * m : 16 * m * kPitchA + k));
      if constexpr (std::is_same_v<Weights, const float*>) {
        const float2 low = load_pair(weights + k + lane % 4 * 2),
                     high = load_pair(weights + k + 8 + lane % 4 * 2);
        of_a[m][0] = scaled(of_a[m][0], low), of_a[m][1] = scaled(of_a[m][1], low);
        of_a[m][2] = scaled(of_a[m][2], high), of_a[m][3] = scaled(of_a[m][3], high);
      }
    }
#pragma unroll
    for (int j = 0; j < kColumns; j += 2) {
      uint32_t of_b[4];
      load_matrices<kAcrossB>(of_b,
                              from_b + (kAcrossB ? k * kPitchB + 8 * j : 8 * j * kPitchB + k));
#pragma unroll
      for (int m = 0; m < kRows; ++m) {
        multiply_add(c.at[m][j], of_a[m], of_b[0], of_b[1]);
        multiply_add(c.at[m][j + 1], of_a[m], of_b[2], of_b[3]);
      }
    }
  }
}

template <int kSum, int kRows, int kColumns, int kPitchA, bool kAcrossA, int kPitchB, bool kAcrossB,
          typename Weights = Unweighted>
__device__ inline void multiply(Fragment<kRows, kColumns>& c, Factor<float, kPitchA, kAcrossA> a,
                                Factor<float, kPitchB, kAcrossB> b, int begin = 0, int end = kSum,
                                Weights weights = {}) {
  const int row = c.lane_row(), column = c.lane_column();
#pragma unroll 2
  for (int k = begin; k < end; ++k) {
    float of_a[2 * kRows], of_b[2 * kColumns];
#pragma unroll
    for (int r = 0; r < 2 * kRows; ++r) {
      of_a[r] = a.at(row + 8 * r, k);
      if constexpr (std::is_same_v<Weights, const float*>) {
        of_a[r] = __fmul_rn(of_a[r], weights[k]);
      }
    }
#pragma unroll
    for (int j = 0; j < 2 * kColumns; ++j) of_b[j] = b.at(column + 8 * (j / 2) + j % 2, k);
    c.each_pair([&](int r, int j, int, int, float& first, float& next) {
      first = multiply_add(of_a[r], of_b[2 * j], first);
      next = multiply_add(of_a[r], of_b[2 * j + 1], next);
    });
  }
}

// Among four neighbouring lanes, lane t gets words[t] of each of them, in the order of the lanes.
__device__ inline void transpose_quad(uint32_t (&words)[4]) {
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
  const auto exchange = [](uint32_t& low, uint32_t& high, bool behind, int distance) {
    const uint32_t got = __shfl_xor_sync(~0u, behind ? low : high, distance);
    low = behind ? got : low;
    high = behind ? high : got;
  };
  exchange(words[0], words[1], odd, 1);
  exchange(words[2], words[3], odd, 1);
  exchange(words[0], words[2], upper, 2);
  exchange(words[1], words[3], upper, 2);
}

// Writes the first `rows` x `columns` of a warp's numbers, rounded to T; row r begins at
// to + r * stride, at a multiple of 16 bytes. `columns` is a multiple of 8 (bf16) or 4 (fp32).
template <typename T, int kRows, int kColumns>
__device__ inline void store_fragment(Fragment<kRows, kColumns>& c, T* to, int64_t stride, int rows,
                                      int columns) {
  constexpr bool kQuads = sizeof(T) == 2 && kColumns % 4 == 0;
  if constexpr (kQuads) {
#pragma unroll
    for (int r = 0; r < 2 * kRows; ++r) {
      const int row = c.lane_row() + 8 * r;
#pragma unroll
      for (int j = 0; j < kColumns; j += 4) {
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          words[i] = packed(c.at[r / 2][j + i][r % 2 * 2], c.at[r / 2][j + i][r % 2 * 2 + 1]);
        }
        transpose_quad(words);
        const int column = 8 * (j + threadIdx.x % 4);
        if (row < rows && column < columns) {
          *reinterpret_cast<uint4*>(to + row * stride + column) =
              make_uint4(words[0], words[1], words[2], words[3]);
        }
      }
    }
  } else {
    c.each_pair([&](int, int, int row, int column, float first, float second) {
      if (row < rows && column < columns) store_pair(to + row * stride + column, first, second);
    });
  }
}

// Asks for a tile of kRows x kWidth elements of rows that begin `stride` elements apart, by
// kThreads threads. What is behind the first `rows` and `columns` is zeros. `columns` elements are
// a multiple of 16 bytes.
template <int kRows, int kWidth, int kThreads, typename T>
__device__ inline void copy_tile(T* shared, const T* global, int64_t stride, int rows,
                                 int columns) {
  constexpr int kSize = Vector<T>::kSize, kVectors = kWidth / kSize;
  constexpr int kAll = kRows * kVectors;
  static_assert(kAll % kThreads == 0);
#pragma unroll
  for (int i = 0; i < kAll / kThreads; ++i) {
    const int vector = static_cast<int>(threadIdx.x) + i * kThreads;
    const int row = vector / kVectors, column = vector % kVectors * kSize;
    const bool exists = row < rows && column < columns;
    copy_async(shared + row * pitch_of<T>(kWidth) + column,
               exists ? global + row * stride + column : global, exists ? 16 : 0);
  }
}

}  // namespace mambify::kernels
