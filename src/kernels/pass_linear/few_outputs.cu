// The warps that share a tile of outputs in few_rows.cu are the blocks of a cluster here, one warp
// each: more multiprocessors than there are tiles read the weights, all of them while the kernel
// before still runs. One block adds what all have summed, in their order.
#include "kernels/cuda/cluster.cuh"
#include "kernels/pass_linear/few_outputs.h"
#include "kernels/pass_linear/tile.cuh"

namespace mambify::kernels::linear {
namespace {

constexpr int kMembers = 8;   // of a sum, and blocks of a cluster
constexpr int kOutputs = 16;  // of a tile, which a cluster has
constexpr int kParts = kChunk / 32;
// Vectors of a chunk that a thread copies for itself: of two rows of the weight, and of one of x.
constexpr int kVectors = 3 * kParts;

int chunks_of_member(int64_t inputs) {
  return static_cast<int>(divide_up(inputs, int64_t{kMembers} * kChunk));
}
int64_t bytes_of(int64_t inputs) { return int64_t{chunks_of_member(inputs)} * kVectors * 32 * 16; }

__global__ void __launch_bounds__(32) few_outputs(const PassLinearParams<Bf16> params) {
  PassLinearParams<Bf16> p = params;  // of what it never has there is no code
  p.gated = false, p.bias = nullptr, p.residual = nullptr;
  extern __shared__ uint4 shared[];         // [chunks, kVectors, 32]
  __shared__ float4 partial[kMembers][32];  // in the block that adds, of each member's threads
  __shared__ Arrivals arrivals;             // of these
  const int lane = threadIdx.x, row_in_tile = lane / 4, part = lane % 4;
  if (lane == 0) expect_bytes(&arrivals, sizeof(partial));
  __syncwarp();
  arrive_at_cluster();
  const int member = blockIdx.x % kMembers, tile = blockIdx.x / kMembers;
  const int rows = static_cast<int>(p.rows), inputs = static_cast<int>(p.inputs);
  const int64_t outputs = p.outputs;
  const int first = member * kChunk + part * 8;
  const bool has_row = row_in_tile < rows;
  // Of a chunk's vectors, kParts of each of the tile's halves, and then of x.
  const auto request = [&](int begin, const Bf16* from) {
#pragma unroll 1
    for (int chunk = 0, k = first; k < inputs; ++chunk, k += kMembers * kChunk) {
      uint4* to = shared + (chunk * kVectors + begin) * 32 + lane;
#pragma unroll
      for (int v = 0; v < kParts; ++v) {
        if (k + v * 32 < inputs) copy_async(to + v * 32, from + k + v * 32);
      }
    }
  };
#pragma unroll 1
  for (int half = 0; half < 2; ++half) {
    const int64_t output = tile * kOutputs + half * 8 + row_in_tile;
    request(half * kParts, p.weight + min(output, outputs - 1) * inputs);
  }
  const Bf16* x = has_row ? row_of_x(p, row_in_tile) : p.x;
  const int my_row = lane % kMostStagedRows;  // whose place this thread knows
  const int place = p.scatter && my_row < rows ? p.tokens[my_row].place : my_row;
  wait_for_cluster();  // every block has begun
  wait_for_predecessor();
  start_successor();  // sooner was slower
  if (has_row) request(2 * kParts, x);
  end_copy_group();
  await_copies<0>();

  // The vectors of a chunk are on their way to registers while those before are multiplied.
  float sums[4] = {};
  uint4 vectors[kVectors];
  const auto load = [&](int chunk, int k) {
    const uint4* from = shared + chunk * kVectors * 32 + lane;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const bool is_input = k + v % kParts * 32 < inputs && (v < 2 * kParts || has_row);
      vectors[v] = is_input ? from[v * 32] : uint4{};
    }
  };
  load(0, first);
#pragma unroll 1
  for (int chunk = 0, k = first; k - part * 8 < inputs;) {
    uint4 held[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) held[v] = vectors[v];
    ++chunk, k += kMembers * kChunk;
    load(chunk, k);
#pragma unroll
    for (int v = 0; v < kParts; ++v) {
      multiply_vectors(sums, held[v], held[kParts + v], held[2 * kParts + v]);
    }
  }
  store_in_cluster(&partial[member][lane], &arrivals, /*rank=*/0,
                   make_float4(sums[0], sums[1], sums[2], sums[3]));
  if (member != 0) return;
  await_bytes(&arrivals);
#pragma unroll 1
  for (int first_row = 0; first_row < rows; first_row += 32 / kOutputs) {
    const int in_tile = lane % kOutputs, row = first_row + lane / kOutputs;
    const int64_t output = tile * kOutputs + in_tile;
    const int place_of_row = __shfl_sync(~0u, place, row);
    if (output >= outputs || row >= rows) continue;
    // Which thread had this sum, and where.
    const int holder = in_tile % 8 * 4 + row / 2, at = in_tile / 8 * 2 + row % 2;
    float sum = 0;
#pragma unroll
    for (int m = 0; m < kMembers; ++m) {
      sum = __fadd_rn(sum, reinterpret_cast<const float*>(&partial[m][holder])[at]);
    }
    finish(p, place_of_row, output, /*scale=*/1.0f, sum, /*up=*/0.0f, /*residual=*/0.0f);
  }
}

}  // namespace

bool takes_few_outputs(const PassLinearParams<Bf16>& p) {
  constexpr int64_t kMostBytes = 96 << 10;  // kernels before and behind need theirs
  static const bool is_possible = has_clusters(few_outputs);
  return is_possible && p.norm == nullptr && p.scales == nullptr && !p.gated && p.bias == nullptr &&
         p.residual == nullptr && p.rows <= kMostStagedRows && p.inputs == padded(p.inputs) &&
         split_of(p.inputs) == kMembers &&
         divide_up(p.outputs, kOutputs) * kMembers <= 2 * multiprocessors() &&
         bytes_of(p.inputs) <= kMostBytes;
}

void few_outputs_cuda(const PassLinearParams<Bf16>& p, CudaStream stream) {
  const auto bytes = static_cast<int>(bytes_of(p.inputs));
  check_cuda(cudaFuncSetAttribute(few_outputs, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  const auto tiles = static_cast<unsigned>(divide_up(p.outputs, kOutputs));
  launch_clusters(kMembers, few_outputs, dim3(tiles * kMembers), dim3(32), bytes, stream, p);
}

}  // namespace mambify::kernels::linear
