#include "kernels/cuda/vector.cuh"
#include "kernels/pass_norm/params.h"

namespace mambify::kernels {
namespace {

constexpr int kPrefetchBlocks = 64;
constexpr int kManyRows = 1024;  // enough to fill the device with a warp each

template <typename T>
__global__ void __launch_bounds__(kNormThreads) norm(PassNormParams<T> p, Prefetch next, int rows) {
  constexpr int kSize = Vector<T>::kSize;
  __shared__ float sums[kNormWarps];
  start_successor();
  const int row = blockIdx.x;
  if (row >= rows) return prefetch_to_l2(next, row - rows, gridDim.x - rows);
  wait_for_predecessor();
  const int target = p.only_scored ? p.tokens[row].scored : row;
  if (target < 0) return;
  const int width = static_cast<int>(p.width);
  const T* x = p.x + row * p.width;
  float sum = 0;
  for (int k = threadIdx.x * kSize; k < width; k += kNormThreads * kSize) {
    const uint4 v = load_vector(x, k, width);
    *reinterpret_cast<uint4*>(p.y + target * p.width + k) =
        weighted<T>(v, load_vector(p.weight, k, width));
    sum = add_squares<T>(v, sum);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) p.scales[target] = inverse_rms(total_of_warps(sums, 1), width, p.eps);
}

// A warp computes a row, with the sums of the block above: what its warps add up one after another.
constexpr int kRowVectors = kNormThreads;  // most of a row

template <typename T>
__global__ void __launch_bounds__(kNormThreads) norm_of_many(PassNormParams<T> p) {
  constexpr int kSize = Vector<T>::kSize;
  start_successor();
  wait_for_predecessor();
  const int row = (blockIdx.x * kNormThreads + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (row >= p.rows) return;
  const int target = p.only_scored ? p.tokens[row].scored : row;
  if (target < 0) return;
  const int width = static_cast<int>(p.width);
  const T* x = p.x + row * p.width;
  float total = 0;
  for (int first = 0; first < width; first += 32 * kSize) {
    const int k = first + lane * kSize;
    float sum = 0;
    if (k < width) {
      const uint4 v = load_vector(x, k, width);
      *reinterpret_cast<uint4*>(p.y + target * p.width + k) =
          weighted<T>(v, load_vector(p.weight, k, width));
      sum = add_squares<T>(v, 0.0f);
    }
    total = __fadd_rn(total, warp_sum(sum));
  }
  if (lane == 0) p.scales[target] = inverse_rms(total, width, p.eps);
}

// kWarps warps compute a group together: one for the narrow groups of a head, a block's for a group
// that is as wide as the layer.
template <typename T, int kWarps>
__global__ void __launch_bounds__(kNormThreads)
    gated_norm(PassGatedNormParams<T> p, Prefetch next, int working_blocks) {
  constexpr int kThreads = kWarps * 32;
  __shared__ float sums[kNormWarps];
  start_successor();
  if (static_cast<int>(blockIdx.x) >= working_blocks) {
    return prefetch_to_l2(next, blockIdx.x - working_blocks, gridDim.x - working_blocks);
  }
  wait_for_predecessor();
  const int groups = static_cast<int>(p.width / p.group), size = static_cast<int>(p.group);
  const int task = (blockIdx.x * kNormThreads + threadIdx.x) / kThreads;
  const int thread = threadIdx.x % kThreads;
  if (task >= p.rows * groups) return;  // whole warps; whole blocks where they wait for one another
  const int row = task / groups, first = task % groups * size;
  T* y = p.y + row * p.width + first;
  const T* z = p.z + static_cast<int64_t>(p.tokens[row].place) * p.z_stride + first;
  const auto gated = [&](int k) {
    return p.gate ? __fmul_rn(as_float(y[k]), silu(as_float(z[k]))) : as_float(y[k]);
  };
  float inverse = 1;
  if (p.norm) {
    float sum = 0;
    for (int k = thread; k < size; k += kThreads) {
      const float u = gated(k);
      sum = multiply_add(u, u, sum);
    }
    sum = warp_sum(sum);
    if constexpr (kWarps > 1) {
      if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
      __syncthreads();
      sum = total_of_warps(sums, 1);
    }
    inverse = inverse_rms(sum, size, p.eps);
  }
  for (int k = thread; k < size; k += kThreads) {
    const float u = gated(k);
    y[k] = rounded<T>(p.norm ? __fmul_rn(__fmul_rn(u, inverse), as_float(p.weight[first + k])) : u);
  }
}

template <typename T, int kWarps>
void start_gated_norm(const PassGatedNormParams<T>& p, const Prefetch& next, CudaStream stream) {
  const int64_t warps = p.rows * (p.width / p.group) * kWarps;
  const auto working = static_cast<int>((warps + kNormWarps - 1) / kNormWarps);
  launch(gated_norm<T, kWarps>, dim3(working + (next.bytes > 0 ? kPrefetchBlocks : 0)),
         dim3(kNormThreads), 0, stream, p, next, working);
}

}  // namespace

template <typename T>
void pass_norm_cuda(const PassNormParams<T>& p, const Prefetch& next, CudaStream stream) {
  require(p.width % 8 == 0 && p.width > 0, "pass_norm: the width is no multiple of 8");
  const auto rows = static_cast<int>(p.rows);
  if (rows >= kManyRows && p.width <= kRowVectors * Vector<T>::kSize) {
    const unsigned blocks = (rows + kNormWarps - 1) / kNormWarps;
    return launch(norm_of_many<T>, dim3(blocks), dim3(kNormThreads), 0, stream, p);
  }
  launch(norm<T>, dim3(rows + (next.bytes > 0 ? kPrefetchBlocks : 0)), dim3(kNormThreads), 0,
         stream, p, next, rows);
}

template <typename T>
void pass_gated_norm_cuda(const PassGatedNormParams<T>& p, const Prefetch& next,
                          CudaStream stream) {
  require(p.group > 0 && p.width % p.group == 0, "pass_norm: groups do not divide the width");
  constexpr int64_t kWide = 512;
  if (p.group >= kWide) return start_gated_norm<T, kNormWarps>(p, next, stream);
  start_gated_norm<T, 1>(p, next, stream);
}

template void pass_norm_cuda(const PassNormParams<float>&, const Prefetch&, CudaStream);
template void pass_norm_cuda(const PassNormParams<Bf16>&, const Prefetch&, CudaStream);
template void pass_gated_norm_cuda(const PassGatedNormParams<float>&, const Prefetch&, CudaStream);
template void pass_gated_norm_cuda(const PassGatedNormParams<Bf16>&, const Prefetch&, CudaStream);

}  // namespace mambify::kernels
