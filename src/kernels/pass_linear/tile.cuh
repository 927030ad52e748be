// What the kernels of a linear map share: x in shared memory with its norm or convolution, a step
// of the tensor cores, and what follows a sum on its way to memory.
#pragma once

#include "kernels/cuda/multiprocessors.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/pass_linear/params.h"

namespace mambify::kernels::linear {

constexpr int kThreads = kNormThreads, kWarps = kThreads / 32;
constexpr int kMostStagedRows = 8;

// Warps that share a tile of outputs: a function of the number of inputs alone, so that every sum
// has one order, whatever the number of rows.
inline int split_of(int64_t inputs) {
  return inputs >= 768 ? 8 : inputs >= 384 ? 4 : inputs >= 256 ? 2 : 1;
}

// Inputs that a member takes at a time: every split-th chunk is its own. Kernels that compute the
// same sum in another way go by this, too.
constexpr int kChunk = 64;

// Elements between rows of x in shared memory: they lie in different banks.
template <typename T>
__host__ __device__ constexpr int64_t staged_stride(int64_t inputs) {
  return padded(inputs) + (sizeof(T) == 2 ? 32 : 0);
}

// Of x in shared memory; 0 when the rows are too many for it, or end within a vector.
template <typename T>
int64_t staged_bytes_of(int64_t rows, int64_t inputs) {
  constexpr int64_t kMost = 96 << 10;
  const int64_t bytes = rows * staged_stride<T>(inputs) * static_cast<int64_t>(sizeof(T));
  return inputs == padded(inputs) && rows <= kMostStagedRows && bytes <= kMost ? bytes : 0;
}

__device__ inline void multiply_tensor(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                       uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The same of sixteen bytes of two rows of a tile and of a row of x: the sum of 32 inputs, which
// four threads share.
__device__ inline void multiply_vectors(float (&sum)[4], uint4 top, uint4 bottom, uint4 x) {
  multiply_tensor(sum, top.x, bottom.x, top.y, bottom.y, x.x, x.y);
  multiply_tensor(sum, top.z, bottom.z, top.w, bottom.w, x.z, x.w);
}

template <typename T>
__device__ inline const T* row_of_x(const PassLinearParams<T>& p, int row) {
  return p.x + (p.gather ? p.tokens[row].place : row) * p.x_stride;
}

// Sums of squares of each row's parts, [warps][rows].
using Squares = float[kNormWarps][kMostStagedRows];

// The first vectors of a norm's weight that a thread needs: constants, read early.
constexpr int kNormVectors = 2;
template <typename T>
__device__ inline void load_norm(const PassLinearParams<T>& p, uint4 (&weight)[kNormVectors]) {
  if (p.norm == nullptr) return;
#pragma unroll
  for (int i = 0; i < kNormVectors; ++i) {
    const int k = (static_cast<int>(threadIdx.x) + i * kThreads) * Vector<T>::kSize;
    if (k < p.inputs) weight[i] = *reinterpret_cast<const uint4*>(p.norm + k);
  }
}

// The rows of x, times the norm's weight if there is one, to shared memory; by all threads, each
// with all its copies on their way at once, because behind a stream of weights one takes most of a
// microsecond. A thread norms what it has copied.
template <typename T>
__device__ inline void stage_rows(const PassLinearParams<T>& p,
                                  const uint4 (&norm_weight)[kNormVectors], T* staged,
                                  Squares& squares) {
  constexpr int kSize = Vector<T>::kSize, kStep = kThreads * kSize;
  const int rows = static_cast<int>(p.rows), inputs = static_cast<int>(p.inputs);
  const int stride = static_cast<int>(staged_stride<T>(p.inputs));
  const int first = static_cast<int>(threadIdx.x) * kSize;
#pragma unroll 1
  for (int row = 0; row < rows; ++row) {
    const T* from = row_of_x(p, row);
#pragma unroll 1
    for (int k = first; k < inputs; k += kStep) copy_async(staged + row * stride + k, from + k);
  }
  end_copy_group();
  await_copies<0>();
  if (p.norm == nullptr) return sync_threads<kThreads>();
#pragma unroll 1
  for (int row = 0; row < rows; ++row) {
    float sum = 0;
#pragma unroll 1
    for (int k = first; k < inputs; k += kStep) {
      const uint4 weight = k < kStep       ? norm_weight[0]
                           : k < 2 * kStep ? norm_weight[1]
                                           : *reinterpret_cast<const uint4*>(p.norm + k);
      uint4* x = reinterpret_cast<uint4*>(staged + row * stride + k);
      sum = add_squares<T>(*x, sum);
      *x = weighted<T>(*x, weight);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) squares[threadIdx.x / 32][row] = sum;
  }
  sync_threads<kThreads>();
}

// What the sums of a row are multiplied by.
template <typename T>
__device__ inline float scale_of(const PassLinearParams<T>& p, const Squares& squares, int row) {
  if (p.scales != nullptr) return p.scales[row];
  if (p.norm == nullptr) return 1;
  return inverse_rms(total_of_warps(&squares[0][row], kMostStagedRows), static_cast<int>(p.inputs),
                     p.norm_eps);
}

// What is added to an output: 0 where there is none. Asked for early, because it comes from memory.
template <typename T>
__device__ inline float residual_of(const PassLinearParams<T>& p, int row, int64_t output) {
  if (p.residual == nullptr || row >= p.rows || output >= p.outputs) return 0;
  return as_float(p.residual[row * p.outputs + output]);
}

// What follows a sum on its way to memory. up: the sum of the other matrix when gated.
template <typename T>
__device__ inline T finished(const PassLinearParams<T>& p, int64_t output, float scale, float sum,
                             float up, float residual) {
  float y = round_to<T>(__fmul_rn(sum, scale));
  if (p.gated) {
    y = __fmul_rn(silu(y), round_to<T>(__fmul_rn(up, scale)));
  } else {
    if (p.bias != nullptr) y = round_to<T>(__fadd_rn(y, as_float(p.bias[output])));
    if (p.residual != nullptr) y = __fadd_rn(residual, y);
  }
  return rounded<T>(y);
}

// The same, to memory. place: of the row in y.
template <typename T>
__device__ inline void finish(const PassLinearParams<T>& p, int64_t place, int64_t output,
                              float scale, float sum, float up, float residual) {
  p.y[place * p.y_stride + output] = finished(p, output, scale, sum, up, residual);
}

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Launches a kernel of kThreads threads a block and so many bytes of shared memory.
template <typename Kernel, typename... Arguments>
void start(Kernel kernel, dim3 grid, int64_t bytes, CudaStream stream, Arguments... arguments) {
  constexpr int64_t kMostUnasked = 32 << 10;  // 48 KiB less what kernels have by themselves
  if (bytes > kMostUnasked) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(bytes)));
  }
  launch(kernel, grid, dim3(kThreads), static_cast<size_t>(bytes), stream, arguments...);
}

// Warps [first, first + count) of a block wait for one another.
__device__ inline void wait_for_warps(int group, int count) {
  if (count == 1) {
    __syncwarp();
  } else {
    asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(count * 32) : "memory");
  }
}

}  // namespace mambify::kernels::linear
