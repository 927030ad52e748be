#include <algorithm>

#include "kernels/cuda/read_rate.h"
#include "kernels/cuda/vector.cuh"

namespace mambify::kernels {
namespace {

__global__ void __launch_bounds__(512) read(const uint4* data, int64_t vectors, uint32_t* sink) {
  constexpr int kInFlight = 8;
  uint32_t sum = 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i + (kInFlight - 1) * stride < vectors; i += kInFlight * stride) {
    uint4 v[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) v[u] = load_streamed(data + i + u * stride);
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) sum ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
  }
  if (sum == 1) *sink = sum;  // seen outside, so that no load can be left out
}

}  // namespace

double cuda_read_gigabytes_per_second() {
  constexpr int64_t kBytes = int64_t{2} << 30;
  constexpr int kRepeats = 10, kBlocks = 132 * 8;
  const DeviceMemory memory(kBytes), sink(16);
  cudaEvent_t begin, end;
  check_cuda(cudaEventCreate(&begin));
  check_cuda(cudaEventCreate(&end));
  float best = 0;
  for (int i = 0; i < kRepeats; ++i) {
    check_cuda(cudaEventRecord(begin));
    read<<<kBlocks, 512>>>(memory.as<uint4>(), kBytes / 16, sink.as<uint32_t>());
    check_cuda(cudaEventRecord(end));
    check_cuda(cudaEventSynchronize(end));
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin, end));
    best = i == 0 ? milliseconds : std::min(best, milliseconds);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return static_cast<double>(kBytes) / best / 1e6;
}

}  // namespace mambify::kernels
