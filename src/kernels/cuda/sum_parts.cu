#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/sum_parts.h"

namespace mambify::kernels {
namespace {

constexpr int kColumns = 32, kSlices = 16;

__global__ void __launch_bounds__(kColumns* kSlices) sum_parts(SumPartsParams p) {
  __shared__ float slices[kSlices][kColumns];
  const int64_t column = int64_t{blockIdx.x} * kColumns + threadIdx.x;
  float sum = 0;
  if (column < p.columns) {
#pragma unroll 4
    for (int part = threadIdx.y; part < p.parts; part += kSlices) {
      sum += p.partial[part * p.stride + column];
    }
  }
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= p.columns) return;
#pragma unroll
  for (int slice = 1; slice < kSlices; ++slice) sum += slices[slice][threadIdx.x];
  p.total[column] = sum;
}

}  // namespace

void sum_parts_cuda(const SumPartsParams& p, CudaStream stream) {
  const auto blocks = static_cast<unsigned>((p.columns + kColumns - 1) / kColumns);
  sum_parts<<<blocks, dim3(kColumns, kSlices), 0, static_cast<cudaStream_t>(stream)>>>(p);
  check_cuda(cudaGetLastError());
}

}  // namespace mambify::kernels
