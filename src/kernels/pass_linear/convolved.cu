// The warps that share a tile of outputs in cuda.cu are the blocks of a cluster here: each
// convolves no channels but those of its own chunks of the inputs, and reads their weights while
// the kernel before it still runs. One block adds what all have summed, in their order.
#include "kernels/cuda/cluster.cuh"
#include "kernels/pass_linear/convolved.h"
#include "kernels/pass_linear/tile.cuh"

namespace mambify::kernels::linear {
namespace {

constexpr int kMembers = 8;   // of a sum, and blocks of a cluster
constexpr int kOutputs = 16;  // of a tile, which a cluster has
constexpr int kSize = 8;      // elements of a vector of 16 bytes
constexpr int kChunkVectors = kChunk / kSize;
constexpr int kWeightVectors = kOutputs * kChunkVectors;  // of a chunk
constexpr int kFew = 1, kMany = 3;                        // vectors that a thread loads at once
constexpr int kMostBytes = 96 << 10;  // of shared memory: kernels before and behind need theirs

// Where a block keeps its part of the weight, filter and bias, and the rows that it convolves.
struct Parts {
  int chunks;  // the most that a member has

  __host__ __device__ int filter() const { return chunks * kWeightVectors; }
  __host__ __device__ int bias() const { return filter() + chunks * kChunkVectors * kTaps; }
  __host__ __device__ int rows() const { return bias() + chunks * kChunkVectors; }
  // From a row to the next, in other banks.
  __host__ __device__ int stride() const { return chunks * kChunkVectors + kChunkVectors / 2; }
  int bytes(int64_t count) const { return (rows() + static_cast<int>(count) * stride()) * 16; }
};
Parts parts_of(int64_t inputs) {
  constexpr int64_t kEach = int64_t{kMembers} * kChunk;
  return {.chunks = static_cast<int>((inputs + kEach - 1) / kEach)};
}

// kAtOnce: vectors whose inputs are on their way to a thread together.
template <int kAtOnce>
__global__ void __launch_bounds__(kThreads)
    convolved_linear(const PassLinearParams<Bf16> p, const Parts parts) {
  extern __shared__ uint4 shared[];
  __shared__ float4 partial[kMembers][32];      // in the block that adds, of each member's threads
  __shared__ Arrivals arrivals;                 // of these
  __shared__ int taps[kMostStagedRows][kTaps];  // places in the ring; -1: none
  if (threadIdx.x == 0) expect_bytes(&arrivals, sizeof(partial));
  arrive_at_cluster();
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int member = blockIdx.x % kMembers, tile = blockIdx.x / kMembers;
  const int rows = static_cast<int>(p.rows), inputs = static_cast<int>(p.inputs);
  const int chunks = (inputs + kChunk - 1) / kChunk;
  const int mine = (chunks - member + kMembers - 1) / kMembers;
  const auto input_of = [&](int chunk) { return (member + chunk * kMembers) * kChunk; };
  const int row_in_tile = lane / 4, part = lane % 4;

  // One warp multiplies: its threads copy what they will need. Vector v of a chunk is at 32 v.
  uint4* weights = shared + lane;
  if (warp == 0) {
#pragma unroll 1
    for (int chunk = 0; chunk < mine; ++chunk) {
#pragma unroll
      for (int v = 0; v < kWeightVectors / 32; ++v) {
        const int half = v / 2, k = input_of(chunk) + v % 2 * 32 + part * kSize;
        const int64_t output = tile * kOutputs + half * 8 + row_in_tile;
        if (k >= inputs) continue;
        copy_async(weights + (chunk * (kWeightVectors / 32) + v) * 32,
                   p.weight + min(output, p.outputs - 1) * inputs + k);
      }
    }
  }
  // A thread convolves these eight channels of a row, and then of others.
  constexpr int kStep = kThreads / kChunkVectors;
  const int in_chunk = thread % kChunkVectors * kSize;
#pragma unroll 1
  for (int chunk = thread / kChunkVectors; chunk < mine; chunk += kStep) {
    const int k = input_of(chunk) + in_chunk, to = chunk * kChunkVectors + in_chunk / kSize;
    if (k >= inputs) continue;
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
      copy_async(shared + parts.filter() + to * kTaps + tap,
                 p.conv_weight + k * kTaps + tap * kSize);
    }
    copy_async(shared + parts.bias() + to, p.conv_bias + k);
  }
  end_copy_group();
  if (thread < rows * kTaps) {
    const int row = thread / kTaps, tap = thread % kTaps, slots = static_cast<int>(p.ring_slots);
    // Past the first cache, as load_sequence of the multi-step kernels does.
    const int place = __ldcg(&p.tokens[row].place), position = __ldcg(&p.tokens[row].position);
    const int at = position - (kTaps - 1) + tap;
    taps[row][tap] = at < 0 ? -1 : place - position % slots + at % slots;
  }
  const int first_row = thread / kChunkVectors / mine;
  const int first_chunk = thread / kChunkVectors % mine;
  const int row_step = kStep / mine, chunk_step = kStep % mine;
  await_copies<0>();
  __syncthreads();
  wait_for_cluster();  // every block has begun
  wait_for_predecessor();
  start_successor();  // sooner was slower

  const auto advance = [&](int& row, int& chunk) {
    row += row_step, chunk += chunk_step;
    if (chunk >= mine) ++row, chunk -= mine;
  };
  int row = first_row, chunk = first_chunk;
#pragma unroll 1
  while (row < rows) {
    uint4 x[kAtOnce][kTaps];
    int loaded_row = row, loaded_chunk = chunk;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i, advance(loaded_row, loaded_chunk)) {
      const int k = input_of(loaded_chunk) + in_chunk;
      if (loaded_row >= rows || k >= inputs) continue;
#pragma unroll
      for (int tap = 0; tap < kTaps; ++tap) {
        const int place = taps[loaded_row][tap];
        const Bf16* from = p.x + static_cast<int64_t>(max(place, 0)) * p.x_stride + k;
        x[i][tap] = place >= 0 ? *reinterpret_cast<const uint4*>(from) : uint4{};
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i, advance(row, chunk)) {
      if (row >= rows || input_of(chunk) + in_chunk >= inputs) continue;
      const int at = chunk * kChunkVectors + in_chunk / kSize;
      shared[parts.rows() + row * parts.stride() + at] =
          convolved(x[i], reinterpret_cast<const Bf16*>(shared + parts.filter() + at * kTaps),
                    reinterpret_cast<const Bf16*>(shared + parts.bias() + at));
    }
  }
  __syncthreads();

  if (warp == 0) {
    float sums[4] = {};
    const uint4* x = shared + parts.rows() + row_in_tile * parts.stride() + part;
#pragma unroll 1
    for (int c = 0; c < mine; ++c) {
#pragma unroll
      for (int v = 0; v < 2; ++v) {
        const uint4 none{};
        const bool is_input = input_of(c) + v * 32 + part * kSize < inputs;
        const uint4* weight = weights + c * kWeightVectors + v * 32;
        const uint4 top = is_input ? weight[0] : none, bottom = is_input ? weight[64] : none;
        multiply_vectors(sums, top, bottom,
                         is_input && row_in_tile < rows ? x[c * kChunkVectors + v * 4] : none);
      }
    }
    store_in_cluster(&partial[member][lane], &arrivals, /*rank=*/0,
                     make_float4(sums[0], sums[1], sums[2], sums[3]));
  }
  if (member != 0 || thread >= kOutputs * rows) return;
  await_bytes(&arrivals);
  const int in_tile = thread % kOutputs, column = thread / kOutputs;
  const int64_t output = tile * kOutputs + in_tile;
  if (output >= p.outputs) return;
  // Which thread had this sum, and where.
  const int holder = in_tile % 8 * 4 + column / 2, at = in_tile / 8 * 2 + column % 2;
  float sum = 0;
#pragma unroll
  for (int m = 0; m < kMembers; ++m) {
    sum = __fadd_rn(sum, reinterpret_cast<const float*>(&partial[m][holder])[at]);
  }
  const int place = taps[column][kTaps - 1];
  finish(p, p.scatter ? place : column, output, /*scale=*/1.0f, sum, /*up=*/0.0f,
         residual_of(p, column, output));
}

}  // namespace

bool takes_convolved(const PassLinearParams<Bf16>& p) {
  static const bool is_possible =
      has_clusters(convolved_linear<kFew>) && has_clusters(convolved_linear<kMany>);
  return is_possible && p.conv_weight != nullptr && p.norm == nullptr && !p.gated &&
         p.rows <= kMostStagedRows && p.inputs % kSize == 0 && split_of(p.inputs) == kMembers &&
         parts_of(p.inputs).bytes(p.rows) <= kMostBytes;
}

void convolved_cuda(const PassLinearParams<Bf16>& p, CudaStream stream) {
  const Parts parts = parts_of(p.inputs);
  const int bytes = parts.bytes(p.rows);
  const auto kernel = p.rows * parts.chunks * kChunkVectors <= kThreads ? convolved_linear<kFew>
                                                                        : convolved_linear<kMany>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostBytes));
  const auto tiles = static_cast<unsigned>((p.outputs + kOutputs - 1) / kOutputs);
  launch_clusters(kMembers, kernel, dim3(tiles * kMembers), dim3(kThreads), bytes, stream, p,
                  parts);
}

}  // namespace mambify::kernels::linear
