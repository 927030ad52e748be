// The gradients of B and C are sums over the channels of a group: a warp's go to shared memory, a
// block's to global memory, and sum_groups adds those, all in a fixed order.
#pragma once

#include "kernels/selective_scan/cuda.cuh"

namespace mambify::kernels::scan {

// Channels that a block's sum is over.
template <typename L>
__host__ __device__ int summed_channels(const Groups& groups) {
  return groups.slots == 1 ? L::kTile : L::kWarpChannels;
}
template <typename L>
__host__ __device__ int64_t sums_of_token(int64_t channels, const Groups& groups) {
  const int summed = summed_channels<L>(groups);
  return (channels + summed - 1) / summed;
}

// Adds a token's dB or dC over the channels of the warp: to row[kWidth].
template <typename L>
__device__ inline void store_warp_sum(float (&sum)[kStates], const Thread<L>& at, float* row) {
  const int n = at.first_state + scatter_sums<kStates, L::kLanes, 32>(sum, at.lane);
#pragma unroll
  for (int i = 0; i < kLeft<kStates, L::kLanes, 32>; ++i) row[n + i] = sum[i];
}

// Where a block's sums go: [tokens, sums_of_token, kWidth].
template <typename L>
class BlockSums {
 public:
  __device__ BlockSums(float* sums, const Groups& groups, const Thread<L>& at, int64_t all_channels)
      : one_(groups.slots == 1),
        here_(one_ ? 1 : at.channels / L::kWarpChannels),
        token_stride_(sums_of_token<L>(all_channels, groups) * L::kWidth),
        first_(sums + at.first_of_block / summed_channels<L>(groups) * L::kWidth) {}

  // Writes a part's, from the warps' [kPart, kWarps, kWidth] in shared memory. Threads are counted
  // from `thread` on.
  __device__ void write(const float* of_warps, int first_token, int steps, unsigned thread) const {
#pragma unroll 1
    for (unsigned i = thread; i < here_ * kPart * L::kLanes; i += L::kThreads) {
      const int n = i % L::kLanes * kStates, k = i / L::kLanes % kPart,
                which = i / (L::kLanes * kPart);
      if (k >= steps) continue;
      const float* row = of_warps + (k * L::kWarps + which) * L::kWidth + n;
      Elements<kStates> sum = load_elements<kStates>(row);
      if (one_) {
#pragma unroll
        for (int warp = 1; warp < L::kWarps; ++warp) {
          const Elements<kStates> other = load_elements<kStates>(row + warp * L::kWidth);
#pragma unroll
          for (int j = 0; j < kStates; ++j) sum[j] += other[j];
        }
      }
      float* place = first_ + (first_token + k) * token_stride_ + which * L::kWidth + n;
      __stcg(reinterpret_cast<float4*>(place), make_float4(sum[0], sum[1], sum[2], sum[3]));
    }
  }

 private:
  bool one_;
  unsigned here_;         // sums of the block for each token
  int64_t token_stride_;  // floats
  float* first_;
};

constexpr int kSumThreads = 256;

// total[row, n] = sum over i of sums[row, i, n]; a row is a token and a group. A thread takes four
// n.
template <typename T, int kWidth, bool kWhole>
__global__ void __launch_bounds__(kSumThreads)
    add_sums(const float* __restrict__ sums, int64_t rows, int count, int d_state,
             T* __restrict__ total) {
  constexpr int kFours = kWidth / 4;
  const int64_t i = int64_t{blockIdx.x} * kSumThreads + threadIdx.x, row = i / kFours;
  const int n = static_cast<int>(i % kFours) * 4;
  if (row >= rows || n >= d_state) return;
  const float* first = sums + row * count * kWidth + n;
  Elements<4> sum{};
#pragma unroll 4
  for (int k = 0; k < count; ++k) {
    const Elements<4> other = load_elements<4>(first + k * kWidth);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[j] += other[j];
  }
  store_four<kWhole>(sum, total + row * d_state + n, d_state - n);
}

// From the blocks' sums to total: [tokens, n_groups, d_state].
template <typename L, typename T>
void sum_groups(const SelectiveScanCudaParams<T>& p, const Groups& groups, int64_t n_groups,
                const float* sums, T* total, CudaStream stream) {
  const int64_t rows = p.tokens * n_groups, threads = rows * (L::kWidth / 4);
  const auto count = static_cast<int>(sums_of_token<L>(p.channels, groups) / n_groups);
  const bool whole = p.d_state == L::kWidth && in_vectors(total, p.d_state, 4);
  const auto kernel = whole ? add_sums<T, L::kWidth, true> : add_sums<T, L::kWidth, false>;
  kernel<<<static_cast<unsigned>((threads + kSumThreads - 1) / kSumThreads), kSumThreads, 0,
           static_cast<cudaStream_t>(stream)>>>(sums, rows, count, static_cast<int>(p.d_state),
                                                total);
  check_cuda(cudaGetLastError());
}

}  // namespace mambify::kernels::scan
