#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/random_fill.h"

namespace mambify::kernels {
namespace {

template <typename T>
__global__ void fill(T* data, int64_t count, float scale) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    uint64_t hash = static_cast<uint64_t>(i) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 31) * 0xBF58476D1CE4E5B9u;
    const auto bits = static_cast<int32_t>(hash >> 32);
    data[i] = rounded<T>(static_cast<float>(bits) * (scale * 0x1p-31f));
  }
}

}  // namespace

template <typename T>
void fill_random(T* data, int64_t count, float scale) {
  fill<<<1024, 256>>>(data, count, scale);
  check_cuda(cudaGetLastError());
  check_cuda(cudaDeviceSynchronize());
}

template void fill_random(float*, int64_t, float);
template void fill_random(Bf16*, int64_t, float);

}  // namespace mambify::kernels
