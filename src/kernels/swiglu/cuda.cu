#include "kernels/cuda/elements.cuh"
#include "kernels/swiglu/params.h"

namespace mambify::kernels {
namespace {

constexpr int kThreads = 256;

// Where a thread's elements lie.
struct Place {
  int64_t row, column;
};
__device__ inline Place place_of(int64_t first, int64_t width) {
  const int64_t row = first / width;
  return {row, first - row * width};
}

template <int kCount>
__device__ inline int64_t first_element() {
  return (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kCount;
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) forward(SwiGluRowsParams<T> p) {
  const int64_t first = first_element<kCount>();
  if (first >= p.rows * p.width) return;
  const auto [row, column] = place_of(first, p.width);
  const auto gate = load_elements<kCount>(p.gate + row * p.gate_stride + column);
  const auto up = load_elements<kCount>(p.up + row * p.up_stride + column);
  Elements<kCount> y;
#pragma unroll
  for (int i = 0; i < kCount; ++i) y[i] = silu(gate[i]) * up[i];
  store_elements(y, p.y + first);
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) backward(SwiGluRowsBackwardParams<T> p) {
  const SwiGluRowsParams<T>& f = p.forward;
  const int64_t first = first_element<kCount>();
  if (first >= f.rows * f.width) return;
  const auto [row, column] = place_of(first, f.width);
  const auto gate = load_elements<kCount>(f.gate + row * f.gate_stride + column);
  const auto up = load_elements<kCount>(f.up + row * f.up_stride + column);
  const auto dy = load_elements<kCount>(p.dy + first);
  Elements<kCount> dgate, dup;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float s = sigmoid(gate[i]);
    dup[i] = dy[i] * gate[i] * s;
    dgate[i] = dy[i] * up[i] * silu_gradient(gate[i], s);
  }
  const int64_t place = row * p.gradient_stride + column;
  store_elements(dgate, p.dgate + place);
  store_elements(dup, p.dup + place);
}

template <typename T>
bool inputs_in_vectors(const SwiGluRowsParams<T>& p) {
  constexpr int kSize = kVectorSize<T>;
  return in_vectors(p.gate, p.gate_stride, kSize) && in_vectors(p.up, p.up_stride, kSize);
}

template <typename Kernel, typename Params>
void start(Kernel kernel, int count, int64_t elements, const Params& p, CudaStream stream) {
  const int64_t per_block = int64_t{kThreads} * count;
  const auto blocks = static_cast<unsigned>((elements + per_block - 1) / per_block);
  if (blocks == 0) return;
  kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  check_cuda(cudaGetLastError());
}

}  // namespace

template <typename T>
void swiglu_forward_cuda(const SwiGluRowsParams<T>& p, CudaStream stream) {
  constexpr int kSize = kVectorSize<T>;
  const int64_t elements = p.rows * p.width;
  if (inputs_in_vectors(p) && in_vectors(p.y, p.width, kSize)) {
    start(forward<T, kSize>, kSize, elements, p, stream);
  } else {
    start(forward<T, 1>, 1, elements, p, stream);
  }
}

template <typename T>
void swiglu_backward_cuda(const SwiGluRowsBackwardParams<T>& p, CudaStream stream) {
  constexpr int kSize = kVectorSize<T>;
  const int64_t width = p.forward.width, elements = p.forward.rows * width;
  if (inputs_in_vectors(p.forward) && in_vectors(p.dy, width, kSize) && width % kSize == 0 &&
      in_vectors(p.dgate, p.gradient_stride, kSize) &&
      in_vectors(p.dup, p.gradient_stride, kSize)) {
    start(backward<T, kSize>, kSize, elements, p, stream);
  } else {
    start(backward<T, 1>, 1, elements, p, stream);
  }
}

template void swiglu_forward_cuda(const SwiGluRowsParams<float>&, CudaStream);
template void swiglu_forward_cuda(const SwiGluRowsParams<Bf16>&, CudaStream);
template void swiglu_backward_cuda(const SwiGluRowsBackwardParams<float>&, CudaStream);
template void swiglu_backward_cuda(const SwiGluRowsBackwardParams<Bf16>&, CudaStream);

}  // namespace mambify::kernels
