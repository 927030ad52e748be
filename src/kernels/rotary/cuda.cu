#include "kernels/cuda/elements.cuh"
#include "kernels/rotary/params.h"

namespace mambify::kernels {
namespace {

constexpr int kThreads = 256;

// A thread turns kCount neighbouring pairs of a head.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) rotate(RotaryParams<T> p) {
  const int half = static_cast<int>(p.width / 2), parts = half / kCount;
  const int64_t task = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t head_of_all = task / parts, token = head_of_all / p.heads;
  if (token >= p.tokens) return;
  const int i = static_cast<int>(task - head_of_all * parts) * kCount;
  const T* x = p.x + token * p.x_stride + (head_of_all - token * p.heads) * p.width + i;
  const auto first = load_elements<kCount>(x), second = load_elements<kCount>(x + half);
  constexpr int kPart = kCount < 4 ? kCount : 4;  // of cos and sin in 16 bytes
  Elements<kCount> y_first, y_second;
#pragma unroll
  for (int begin = 0; begin < kCount; begin += kPart) {
    const auto cos = load_elements<kPart>(p.cos + token * half + i + begin);
    const auto sin = load_elements<kPart>(p.sin + token * half + i + begin);
#pragma unroll
    for (int k = 0; k < kPart; ++k) {
      const float a = first[begin + k], b = second[begin + k], s = p.inverse ? -sin[k] : sin[k];
      y_first[begin + k] = a * cos[k] - b * s;
      y_second[begin + k] = b * cos[k] + a * s;
    }
  }
  T* y = p.y + head_of_all * p.width + i;
  store_elements(y_first, y);
  store_elements(y_second, y + half);
}

template <typename T, int kCount>
void start(const RotaryParams<T>& p, CudaStream stream) {
  const int64_t tasks = p.tokens * p.heads * (p.width / 2 / kCount);
  const auto blocks = static_cast<unsigned>((tasks + kThreads - 1) / kThreads);
  if (blocks == 0) return;
  rotate<T, kCount><<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check_cuda(cudaGetLastError());
}

}  // namespace

template <typename T>
void rotary_cuda(const RotaryParams<T>& p, CudaStream stream) {
  require(p.width > 0 && p.width % 2 == 0, "rotary: the width of a head is odd");
  constexpr int kSize = kVectorSize<T>;
  const int64_t half = p.width / 2;
  if (half % kSize == 0 && in_vectors(p.x, p.x_stride, kSize) && in_vectors(p.y, half, kSize) &&
      in_vectors(p.cos, half, 4) && in_vectors(p.sin, half, 4)) {
    start<T, kSize>(p, stream);
  } else {
    start<T, 1>(p, stream);
  }
}

template void rotary_cuda(const RotaryParams<float>&, CudaStream);
template void rotary_cuda(const RotaryParams<Bf16>&, CudaStream);

}  // namespace mambify::kernels
