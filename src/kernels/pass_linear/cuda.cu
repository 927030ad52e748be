// Which kernel computes a product, and those of some dozens of rows and of fp32.
#include <algorithm>

#include "kernels/pass_linear/few_outputs.h"
#include "kernels/pass_linear/few_rows.h"
#include "kernels/pass_linear/many_rows.h"
#include "kernels/pass_linear/tile.cuh"

namespace mambify::kernels {
namespace {

using namespace linear;

// As few_rows.cu, but that chunks of x come as those of the weights do, and that a unit is kTiles
// whole tiles: 16 outputs each, or the gate's and the up matrix' rows of 8. kRowTiles: 8 rows of x
// each.
template <int kTiles, int kRowTiles>
struct Streams {
  // Vectors of 32 inputs of the four threads of a row, in a chunk.
  static constexpr int kParts = kChunk / 32;
  static constexpr int kWeightVectors = 4 * kTiles;  // of a thread, 16 bytes each
  static constexpr int kXVectors = kParts * kRowTiles;
  static constexpr int kStep = 32 * (kWeightVectors + kXVectors);  // from a stage to the next
  // Chunks on their way to a warp.
  static constexpr int kMostBytes = 192 << 10;
  static constexpr int kFitting = kMostBytes / (kWarps * kStep * 16);
  static constexpr int kStages = kFitting < 2 ? 2 : kFitting > 6 ? 6 : kFitting;
  static constexpr int kBytes = kWarps * kStages * kStep * 16;
  // Sums of a tile: [2 buffers][warps][16][columns], so that warps wait once for one another.
  static constexpr int kColumns = kRowTiles * 8 + 1, kPartial = 16 * kColumns;
  static constexpr int kPartialBytes = 2 * kWarps * kPartial * 4;
};

template <int kTiles, int kRowTiles>
__global__ void __launch_bounds__(kThreads, 1)
    linear_bf16(PassLinearParams<Bf16> p, int split, int units) {
  using Sizes = Streams<kTiles, kRowTiles>;
  constexpr int kStages = Sizes::kStages, kParts = Sizes::kParts;
  extern __shared__ uint4 shared[];
  __shared__ int places[kRowTiles * 8];  // of rows in y
  start_successor();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row_in_tile = lane / 4, part = lane % 4;
  const int group = warp / split, member = warp % split, groups = kWarps / split;
  const int inputs = static_cast<int>(p.inputs), width = static_cast<int>(padded(p.inputs));
  const int chunks = (width + kChunk - 1) / kChunk;
  const int mine = chunks > member ? (chunks - member + split - 1) / split : 0;
  // Units of kTiles tiles.
  const int first_unit = blockIdx.x + group * gridDim.x, unit_step = gridDim.x * groups;
  const int first_row = blockIdx.y * kRowTiles * 8, rows = static_cast<int>(p.rows);
  uint4* stages = shared + warp * kStages * Sizes::kStep + lane;  // vector v of a stage is at 32 v

  const int outputs = p.gated ? 8 : 16;  // of a tile
  const auto weight_row = [&](int unit, int tile, int half) {
    int64_t row = static_cast<int64_t>(unit * kTiles + tile) * outputs + row_in_tile +
                  (p.gated ? 0 : half * 8);
    row = (row < p.outputs ? row : p.outputs - 1) + (p.gated && half == 1 ? p.outputs : 0);
    return p.weight + row * width;
  };
  const auto input_of = [&](int chunk) { return (member + chunk * split) * kChunk + part * 8; };
  const auto request_weights = [&](int slot, int unit, int chunk) {
    const int k = input_of(chunk);
    uint4* to = stages + slot * Sizes::kStep;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Bf16* from = weight_row(unit, tile, half) + k;
        uint4* target = to + (tile * 4 + half * kParts) * 32;
#pragma unroll
        for (int v = 0; v < kParts; ++v) {
          if (k + v * 32 < width) copy_async(target + v * 32, from + v * 32);
        }
      }
    }
  };
  const Bf16* x[kRowTiles];
  const auto request_x = [&](int slot, int chunk) {
    uint4* to = stages + slot * Sizes::kStep + Sizes::kWeightVectors * 32;
#pragma unroll
    for (int n = 0; n < kRowTiles; ++n) {
      if (x[n] == nullptr) continue;
#pragma unroll
      for (int v = 0; v < kParts; ++v) {
        const int k = input_of(chunk) + v * 32;
        if (k >= width) continue;
        copy_async(to + (n * kParts + v) * 32, x[n] + k, min(16, (inputs - k) * 2));
      }
    }
  };
  // Where the stream is: what is to be asked for next.
  struct Place {
    int unit, chunk;
  };
  const auto advance = [&](Place& place) {
    if (++place.chunk < mine) return;
    place = {place.unit + unit_step, 0};
  };
  const auto is_inside = [&](const Place& place) { return place.unit < units && mine > 0; };

  Place next{first_unit, 0};
#pragma unroll 1
  for (int slot = 0; slot < kStages; ++slot) {
    if (is_inside(next)) request_weights(slot, next.unit, next.chunk);
    advance(next);
  }
#pragma unroll
  for (int n = 0; n < kRowTiles; ++n) {
    const int row = first_row + n * 8 + row_in_tile;
    x[n] = row < rows ? row_of_x(p, row) : nullptr;
  }
  for (int i = threadIdx.x; i < kRowTiles * 8; i += kThreads) {
    const int row = first_row + i;
    places[i] = p.scatter && row < rows ? p.tokens[row].place : row;
  }
  wait_for_predecessor();
  __syncthreads();
  Place asked{first_unit, 0};
#pragma unroll 1
  for (int slot = 0; slot < kStages; ++slot) {
    if (is_inside(asked)) request_x(slot, asked.chunk);
    advance(asked);
    end_copy_group();
  }

  int slot = 0, buffer = 0, finisher = member;
#pragma unroll 1
  for (int unit = first_unit; unit < units; unit += unit_step) {
    float sums[kTiles][kRowTiles][4] = {};
    // Each tile is finished by other warps, because those wait for memory; this thread begins with
    // this output and row of its first tile.
    const int first_output = unit * kTiles * outputs;
    const int begin = (finisher == 0 ? split - 1 : finisher - 1) * 32 + lane;
    const float residual =
        residual_of(p, first_row + begin / outputs, first_output + begin % outputs);
#pragma unroll 1
    for (int c = 0; c < mine; ++c) {
      await_copies<kStages - 1>();
      const uint4* from = stages + slot * Sizes::kStep;
      const uint4 none = make_uint4(0, 0, 0, 0);
#pragma unroll
      for (int v = 0; v < kParts; ++v) {
        const int k = input_of(c) + v * 32;
        uint4 top[kTiles], bottom[kTiles];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          top[tile] = k < width ? from[(tile * 4 + v) * 32] : none;
          bottom[tile] = k < width ? from[(tile * 4 + kParts + v) * 32] : none;
        }
#pragma unroll
        for (int n = 0; n < kRowTiles; ++n) {
          uint4 b = none;
          if (x[n] != nullptr && k < width) {
            b = from[(Sizes::kWeightVectors + n * kParts + v) * 32];
          }
#pragma unroll
          for (int tile = 0; tile < kTiles; ++tile) {
            multiply_vectors(sums[tile][n], top[tile], bottom[tile], b);
          }
        }
      }
      if (is_inside(next)) {
        request_weights(slot, next.unit, next.chunk);
        request_x(slot, next.chunk);
      }
      advance(next);
      end_copy_group();
      slot = slot + 1 == kStages ? 0 : slot + 1;
    }

#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile, buffer ^= 1) {
      float* partial = reinterpret_cast<float*>(shared + Sizes::kBytes / 16) +
                       (buffer * kWarps + group * split) * Sizes::kPartial;
      float* out = partial + member * Sizes::kPartial + row_in_tile * Sizes::kColumns + part * 2;
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n) {
        out[n * 8] = sums[tile][n][0];
        out[n * 8 + 1] = sums[tile][n][1];
        out[n * 8 + 8 * Sizes::kColumns] = sums[tile][n][2];
        out[n * 8 + 8 * Sizes::kColumns + 1] = sums[tile][n][3];
      }
      wait_for_warps(group, split);
      const int columns = min(rows - first_row, kRowTiles * 8);
      finisher = finisher == 0 ? split - 1 : finisher - 1;
#pragma unroll 1
      for (int i = finisher * 32 + lane; i < outputs * columns; i += split * 32) {
        const int output = i % outputs, column = i / outputs;
        const int64_t at = first_output + tile * outputs + output;
        if (at >= p.outputs) continue;
        float sum = 0, up = 0;
#pragma unroll 1
        for (int m = 0; m < split; ++m) {
          const float* in = partial + m * Sizes::kPartial + output * Sizes::kColumns + column;
          sum = __fadd_rn(sum, in[0]);
          if (p.gated) up = __fadd_rn(up, in[8 * Sizes::kColumns]);
        }
        const int row = first_row + column;
        const bool is_early = tile == 0 && i == begin;
        finish(p, places[column], at, p.scales != nullptr ? p.scales[row] : 1.0f, sum, up,
               is_early ? residual : residual_of(p, row, at));
      }
    }
  }
}

// Plain multiply-adds: a warp computes four outputs, its threads share the inputs.
template <int kRows, bool kStaged>
__global__ void __launch_bounds__(kThreads) linear_fp32(PassLinearParams<float> p) {
  constexpr int kOutputs = 4;
  extern __shared__ uint4 shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int inputs = static_cast<int>(p.inputs), width = static_cast<int>(padded(p.inputs));
  const int per_warp = p.gated ? kOutputs / 2 : kOutputs;
  const int64_t first_output = (static_cast<int64_t>(blockIdx.x) * kWarps + warp) * per_warp;
  const int first_row = blockIdx.y * kRows, rows = static_cast<int>(p.rows);
  const int stride = static_cast<int>(staged_stride<float>(p.inputs));
  const float* weight[kOutputs];
#pragma unroll
  for (int m = 0; m < kOutputs; ++m) {
    const int64_t output = first_output + m % per_warp;
    const int64_t row =
        (output < p.outputs ? output : p.outputs - 1) + (m >= per_warp ? p.outputs : 0);
    weight[m] = p.weight + row * width;
  }
  uint4 norm_weight[kNormVectors];
  __shared__ Squares squares;
  if constexpr (kStaged) load_norm(p, norm_weight);
  start_successor();
  wait_for_predecessor();
  float* staged = reinterpret_cast<float*>(shared);
  if constexpr (kStaged) {
    stage_rows(p, norm_weight, staged, squares);
  }
  float sums[kOutputs][kRows] = {};
  for (int k = lane * 4; k < width; k += 128) {
    uint4 w[kOutputs];
#pragma unroll
    for (int m = 0; m < kOutputs; ++m) w[m] = load_streamed(weight[m] + k);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int row = first_row + r;
      if (row >= rows) continue;
      const Vector<float> x =
          unpack<float>(kStaged ? *reinterpret_cast<const uint4*>(staged + row * stride + k)
                                : load_vector(row_of_x(p, row), k, inputs));
#pragma unroll
      for (int m = 0; m < kOutputs; ++m) {
        const Vector<float> v = unpack<float>(w[m]);
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m][r] = multiply_add(v.values[i], x.values[i], sums[m][r]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int m = 0; m < kOutputs; ++m) sums[m][r] = warp_sum(sums[m][r]);
  }
  if (lane != 0) return;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first_row + r >= rows) continue;
#pragma unroll
    for (int m = 0; m < kOutputs; ++m) {
      if (m >= per_warp || first_output + m >= p.outputs) continue;
      const int row = first_row + r;
      finish(p, p.scatter ? p.tokens[row].place : row, first_output + m, scale_of(p, squares, row),
             sums[m][r], p.gated ? sums[(m + kOutputs / 2) % kOutputs][r] : 0.0f,
             residual_of(p, row, first_output + m));
    }
  }
}

template <int kTiles, int kRowTiles>
void start_bf16(const PassLinearParams<Bf16>& p, CudaStream stream) {
  using Sizes = Streams<kTiles, kRowTiles>;
  const int split = split_of(p.inputs);
  const auto units = static_cast<int>(divide_up(p.outputs, (p.gated ? 8 : 16) * kTiles));
  const dim3 grid(static_cast<unsigned>(std::min<int64_t>(units, multiprocessors())),
                  static_cast<unsigned>(divide_up(p.rows, kRowTiles * 8)));
  start(linear_bf16<kTiles, kRowTiles>, grid, Sizes::kBytes + Sizes::kPartialBytes, stream, p,
        split, units);
}

template <int kRows>
void start_fp32(const PassLinearParams<float>& p, int64_t staged_bytes, CudaStream stream) {
  const dim3 grid(static_cast<unsigned>(divide_up(p.outputs, kWarps * (p.gated ? 2 : 4))),
                  static_cast<unsigned>(divide_up(p.rows, kRows)));
  if (staged_bytes > 0) {
    start(linear_fp32<kRows, true>, grid, staged_bytes, stream, p);
  } else {
    start(linear_fp32<kRows, false>, grid, 0, stream, p);
  }
}

template <typename T>
void check(const PassLinearParams<T>& p) {
  const auto aligned = [](const T* data, int64_t stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * sizeof(T) % 16 == 0;
  };
  require(p.rows >= 1 && p.inputs >= 1 && p.outputs >= 1, "pass_linear: an empty product");
  require(aligned(p.weight, padded(p.inputs)) && aligned(p.x, p.x_stride),
          "pass_linear: rows are not aligned to 16 bytes");
  require(p.norm == nullptr || pass_linear_takes_norm<T>(p.rows, p.inputs),
          "pass_linear: no norm of so many rows or of these inputs");
  require(p.conv.channels == 0 || (pass_linear_convolves<T>(p.rows, p.inputs) && p.norm &&
                                   p.scatter && !p.gated && !p.residual),
          "pass_linear: no convolution of the outputs of this product");
}

}  // namespace

template <typename T>
bool pass_linear_takes_norm(int64_t rows, int64_t inputs) {
  return staged_bytes_of<T>(rows, inputs) > 0;
}
template bool pass_linear_takes_norm<float>(int64_t, int64_t);
template bool pass_linear_takes_norm<Bf16>(int64_t, int64_t);

template <>
bool pass_linear_convolves<float>(int64_t, int64_t) {
  return false;
}
template <>
bool pass_linear_convolves<Bf16>(int64_t rows, int64_t inputs) {
  return rows <= kMostFewRows && split_of(inputs) == kWarps &&
         pass_linear_takes_norm<Bf16>(rows, inputs);
}

template <>
void pass_linear_cuda(const PassLinearParams<Bf16>& p, CudaStream stream) {
  check(p);
  if (takes_few_outputs(p)) return few_outputs_cuda(p, stream);
  if (p.rows <= kMostFewRows) return few_rows_cuda(p, stream);
  if (p.rows <= 16) return start_bf16<2, 2>(p, stream);
  if (p.rows <= 32) return start_bf16<2, 4>(p, stream);
  if (takes_many_rows(p)) return many_rows_cuda(p, stream);
  start_bf16<1, 8>(p, stream);
}

template <>
void pass_linear_cuda(const PassLinearParams<float>& p, CudaStream stream) {
  check(p);
  const int64_t staged = staged_bytes_of<float>(p.rows, p.inputs);
  if (p.rows == 1) return start_fp32<1>(p, staged, stream);
  if (p.rows == 2) return start_fp32<2>(p, staged, stream);
  if (p.rows <= 4) return start_fp32<4>(p, staged, stream);
  start_fp32<8>(p, staged, stream);
}

}  // namespace mambify::kernels
