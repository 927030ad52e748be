// A block computes a tile of outputs for a tile of rows on tensor cores. Every sum is that of
// cuda.cu, where warps share a tile: what a member of these adds up is added here one member after
// the other, and its sum to the total before the next one's begins.
#pragma once

#include <algorithm>

#include "kernels/pass_linear/tile.cuh"

namespace mambify::kernels::linear {

// kDown x kAcross warps, each of which computes kOutTiles x 16 outputs for kRowTiles x 8 rows.
// kSharedTotals: totals lie in shared memory while a member's sums need the registers.
template <int kDown_, int kAcross_, int kOutTiles_, int kRowTiles_, int kStages_, bool kShared,
          int kBlocks_>
struct Tiling {
  static constexpr int kDown = kDown_, kAcross = kAcross_, kOutTiles = kOutTiles_;
  static constexpr int kRowTiles = kRowTiles_, kStages = kStages_;
  static constexpr bool kSharedTotals = kShared;
  static constexpr int kBlocks = kBlocks_;  // that fit into a multiprocessor
  static constexpr int kThreads = kDown * kAcross * 32;
  static constexpr int kOutputs = kDown * kOutTiles * 16;  // rows of the weight
  static constexpr int kRows = kAcross * kRowTiles * 8;
  // A stage holds 32 inputs, 4 vectors of 16 bytes, of the weight's rows and then of those of x.
  static constexpr int kInputs = 32;
  static constexpr int kStageVectors = (kOutputs + kRows) * 4;
  static constexpr int kWeightLoads = kOutputs * 4 / kThreads;  // of a thread, in a stage
  static constexpr int kLoads = kStageVectors / kThreads;
  static_assert(kOutputs * 4 % kThreads == 0 && kStageVectors % kThreads == 0);
  static_assert(kOutTiles % 2 == 0);
  static constexpr int kStageBytes = kStages * kStageVectors * 16;
  static constexpr int kTotalBytes = kShared ? kOutputs * kRows * 4 : 0;
  // At the end totals lie there as [kRows, kColumns]: lanes of a warp write to different banks.
  static constexpr int kColumns = kOutputs + 4;
  static constexpr int kBytes = std::max(kStageBytes + kTotalBytes, kRows* kColumns * 4);
};

// The inputs that a stage holds: chunks of 64, member by member.
class StageInputs {
 public:
  __device__ StageInputs(int inputs, int split) : end_((inputs + 63) / 64 * 64), split_(split) {}
  __device__ int steps() const { return end_ / 32; }
  __device__ int first() const { return k_; }
  // True when that was the last of a member.
  __device__ bool advance() {
    k_ += 32;
    if (k_ % 64 != 0) return false;
    k_ += (split_ - 1) * 64;
    if (k_ < end_) return false;
    k_ = ++member_ * 64;
    return true;
  }

 private:
  int k_ = 0, member_ = 0, end_, split_;
};

// Four outputs of a row behind one another.
__device__ inline void finish_quad(const PassLinearParams<Bf16>& p, int row, int64_t place,
                                   int64_t output, float scale, float4 sum, float4 up,
                                   bool in_vectors) {
  const float sums[4] = {sum.x, sum.y, sum.z, sum.w}, ups[4] = {up.x, up.y, up.z, up.w};
  const int count = static_cast<int>(min(int64_t{4}, p.outputs - output));
  Bf16* y = p.y + place * p.y_stride + output;
  if (in_vectors && count == 4) {
    alignas(8) Bf16 residual[4] = {}, out[4];
    if (p.residual != nullptr) {
      *reinterpret_cast<uint2*>(residual) =
          *reinterpret_cast<const uint2*>(p.residual + row * p.outputs + output);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out[i] = finished(p, output + i, scale, sums[i], ups[i], as_float(residual[i]));
    }
    *reinterpret_cast<uint2*>(y) = *reinterpret_cast<const uint2*>(out);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i >= count) break;
    y[i] = finished(p, output + i, scale, sums[i], ups[i], residual_of(p, row, output + i));
  }
}

// The first vector of row `r` of a block's tile of the weight: of 16 rows of a gated tile, 8 are
// the gate's and 8 the other matrix'.
__device__ inline uint32_t weight_vector(const PassLinearParams<Bf16>& p, int64_t first_output,
                                         int r) {
  const int64_t output = first_output + (p.gated ? r / 16 * 8 + r % 8 : r);
  const int64_t row = min(output, p.outputs - 1) + (p.gated && r / 8 % 2 == 1 ? p.outputs : 0);
  return static_cast<uint32_t>(row * (padded(p.inputs) / 8));
}

// Where totals of a tile wait to be finished, [kRows, kOutputs + 4]: those of a product of 16
// outputs and 8 rows, as the instruction leaves them.
template <int kOutputs>
__device__ inline void stage_totals(float* staged, bool gated, int out_tile, int row_tile,
                                    const float* totals) {
  constexpr int kColumns = kOutputs + 4;  // lanes of a warp write to different banks
  const int lane = threadIdx.x % 32, below = gated ? kOutputs / 2 : 8;
  float* to =
      staged + (row_tile * 8 + lane % 4 * 2) * kColumns + out_tile * (gated ? 8 : 16) + lane / 4;
  to[0] = totals[0];
  to[kColumns] = totals[1];
  to[below] = totals[2];
  to[kColumns + below] = totals[3];
}

// in_vectors: four outputs of y and of the residual are aligned to 8 bytes.
template <int kRows, int kOutputs, int kThreads>
__device__ inline void finish_tile(const PassLinearParams<Bf16>& p, const float* staged,
                                   int first_row, int64_t first_output, bool in_vectors) {
  const int quads = (p.gated ? kOutputs / 2 : kOutputs) / 4;
#pragma unroll 4
  for (int item = threadIdx.x; item < kRows * quads; item += kThreads) {
    const int column = item % quads * 4, row = first_row + item / quads;
    if (row >= p.rows || first_output + column >= p.outputs) continue;
    const float* from = staged + item / quads * (kOutputs + 4) + column;
    const float4 sum = *reinterpret_cast<const float4*>(from);
    const float4 up = p.gated ? *reinterpret_cast<const float4*>(from + kOutputs / 2) : float4{};
    finish_quad(p, row, p.scatter ? p.tokens[row].place : row, first_output + column,
                p.scales != nullptr ? p.scales[row] : 1.0f, sum, up, in_vectors);
  }
}

template <typename Tiling>
__global__ void __launch_bounds__(Tiling::kThreads, Tiling::kBlocks)
    linear_many_rows(const __grid_constant__ PassLinearParams<Bf16> p, int split, int row_blocks,
                     bool in_vectors) {
  constexpr int kThreads = Tiling::kThreads, kStages = Tiling::kStages, kRows = Tiling::kRows;
  constexpr int kOutputs = Tiling::kOutputs, kOutTiles = Tiling::kOutTiles;
  constexpr int kRowTiles = Tiling::kRowTiles, kStageVectors = Tiling::kStageVectors;
  extern __shared__ uint4 shared[];
  start_successor();
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int inputs = static_cast<int>(p.inputs), width = static_cast<int>(padded(p.inputs));
  const int rows = static_cast<int>(p.rows);
  // Blocks side by side share the weights and, over all of them, few rows of x.
  const int first_row = static_cast<int>(blockIdx.x) % row_blocks * kRows;
  const int out_tile = static_cast<int>(blockIdx.x) / row_blocks;
  const int outputs = p.gated ? kOutputs / 2 : kOutputs;  // of the tile
  const int64_t first_output = static_cast<int64_t>(out_tile) * outputs;

  // The rows of which this thread copies a vector to every stage, in vectors.
  uint32_t offsets[Tiling::kLoads];
#pragma unroll
  for (int i = 0; i < Tiling::kLoads; ++i) {
    const int r = thread / 4 + i * (kThreads / 4);
    if (i < Tiling::kWeightLoads) {
      offsets[i] = weight_vector(p, first_output, r);
    } else {
      const int row = min(first_row + r - kOutputs, rows - 1);
      offsets[i] = static_cast<uint32_t>((row_of_x(p, row) - p.x) / 8);
    }
  }
  const auto load = [&]<bool kWeights, bool kX>(int slot, int first_input) {
    const int k = first_input + thread % 4 * 8;
    const uint32_t vector = k < width ? static_cast<uint32_t>(k) / 8 : 0;
    uint4* to = shared + slot * kStageVectors + thread;
#pragma unroll
    for (int i = 0; i < Tiling::kLoads; ++i) {
      const bool is_weight = i < Tiling::kWeightLoads;
      if (is_weight ? !kWeights : !kX) continue;
      const int bytes = is_weight ? (k < width ? 16 : 0) : max(0, min(16, (inputs - k) * 2));
      const auto* from = reinterpret_cast<const uint4*>(is_weight ? p.weight : p.x);
      copy_async(to + i * kThreads, from + (offsets[i] + vector), bytes);
    }
  };

  StageInputs asked(inputs, split), asked_of_x(inputs, split), read(inputs, split);
  const int steps = read.steps();
#pragma unroll
  for (int slot = 0; slot < kStages; ++slot) {
    if (slot < steps) load.template operator()<true, false>(slot, asked.first());
    asked.advance();
  }
  wait_for_predecessor();
#pragma unroll
  for (int slot = 0; slot < kStages; ++slot) {
    if (slot < steps) load.template operator()<false, true>(slot, asked_of_x.first());
    asked_of_x.advance();
    end_copy_group();
  }

  // Lane 4 g + c reads inputs 8 c to 8 c + 7 of row g of a tile of 8: what it holds of two products
  // of 16 inputs, of the weight and of x alike.
  const uint4* weights = shared + warp % Tiling::kDown * kOutTiles * 64 + lane;
  const uint4* x = shared + (kOutputs + warp / Tiling::kDown * kRowTiles * 8) * 4 + lane;
  uint4 a[2][2], b[kRowTiles];
  const auto read_weights = [&](int slot, int tile) {
    a[tile % 2][0] = weights[slot * kStageVectors + tile * 64];
    a[tile % 2][1] = weights[slot * kStageVectors + tile * 64 + 32];
  };
  await_copies<kStages - 1>();
  __syncthreads();
  read_weights(0, 0);
#pragma unroll
  for (int n = 0; n < kRowTiles; ++n) b[n] = x[n * 32];

  float sums[kOutTiles][kRowTiles][4] = {}, totals[kOutTiles][kRowTiles][4];
  float4* stored = reinterpret_cast<float4*>(shared + Tiling::kStageBytes / 16) + thread;
  bool is_first = true;
  int slot = 0;
  for (int step = 0; step < steps; ++step) {
    const int next_slot = slot + 1 == kStages ? 0 : slot + 1;
#pragma unroll
    for (int m = 0; m < kOutTiles; ++m) {
      const bool is_last = m + 1 == kOutTiles;
      if (is_last) {
        // What is left of this stage is in registers: its place takes the next one's copies.
        await_copies<kStages - 2>();
        __syncthreads();
        if (step + kStages < steps) {
          load.template operator()<true, true>(slot, asked.first());
        }
        asked.advance();
        end_copy_group();
        read_weights(next_slot, 0);
      } else {
        read_weights(slot, m + 1);
      }
      const uint4 s = a[m % 2][0], t = a[m % 2][1];
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n) {
        multiply_tensor(sums[m][n], s.x, t.x, s.y, t.y, b[n].x, b[n].y);
      }
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n) {
        multiply_tensor(sums[m][n], s.z, t.z, s.w, t.w, b[n].z, b[n].w);
        if (is_last) b[n] = x[next_slot * kStageVectors + n * 32];
      }
    }
    slot = next_slot;
    if (!read.advance()) continue;
    const bool is_end = step + 1 == steps;
#pragma unroll
    for (int m = 0; m < kOutTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n) {
        float(&total)[4] = totals[m][n];
        float4& in_memory = stored[(m * kRowTiles + n) * kThreads];
        if (is_first) {
          total[0] = total[1] = total[2] = total[3] = 0;
        } else if (Tiling::kSharedTotals) {
          const float4 v = in_memory;
          total[0] = v.x, total[1] = v.y, total[2] = v.z, total[3] = v.w;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          total[i] = __fadd_rn(total[i], sums[m][n][i]);
          sums[m][n][i] = Tiling::kSharedTotals && is_end ? total[i] : 0;
        }
        if (Tiling::kSharedTotals && !is_end) {
          in_memory = make_float4(total[0], total[1], total[2], total[3]);
        }
      }
    }
    is_first = false;
  }

  __syncthreads();
  float* staged = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int m = 0; m < kOutTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kRowTiles; ++n) {
      stage_totals<kOutputs>(staged, p.gated, warp % Tiling::kDown * kOutTiles + m,
                             warp / Tiling::kDown * kRowTiles + n,
                             Tiling::kSharedTotals ? sums[m][n] : totals[m][n]);
    }
  }
  __syncthreads();
  finish_tile<kRows, kOutputs, kThreads>(p, staged, first_row, first_output, in_vectors);
}

// Launches a kernel whose blocks compute kOutputs outputs (half as many of a gated product) for
// kRows rows, with so many bytes of shared memory.
template <typename Kernel>
void start_tiles(Kernel kernel, int64_t tile_outputs, int64_t tile_rows, int threads, int bytes,
                 const PassLinearParams<Bf16>& p, CudaStream stream) {
  const auto in_quads = [](const Bf16* data, int64_t stride) {
    return reinterpret_cast<uintptr_t>(data) % 8 == 0 && stride % 4 == 0;
  };
  const int64_t row_blocks = divide_up(p.rows, tile_rows);
  const int64_t out_blocks = divide_up(p.outputs, tile_outputs / (p.gated ? 2 : 1));
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  launch(kernel, dim3(static_cast<unsigned>(row_blocks * out_blocks)),
         dim3(static_cast<unsigned>(threads)), static_cast<size_t>(bytes), stream, p,
         split_of(p.inputs), static_cast<int>(row_blocks),
         in_quads(p.y, p.y_stride) && (p.residual == nullptr || in_quads(p.residual, p.outputs)));
}

template <typename Tiling>
void start_many_rows(const PassLinearParams<Bf16>& p, CudaStream stream) {
  start_tiles(linear_many_rows<Tiling>, Tiling::kOutputs, Tiling::kRows, Tiling::kThreads,
              Tiling::kBytes, p, stream);
}

}  // namespace mambify::kernels::linear
