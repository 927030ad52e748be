// Every multiprocessor has one block, which streams the weights of its outputs through shared
// memory, several kilobytes ahead: the first of them before the kernel that computes x has ended.
// Some warps share a unit of outputs: each takes every so many-th chunk of the inputs, and their
// sums are added in the order of the warps. How many is a function of the number of inputs, so that
// every sum has one order, whatever the number of rows.
#include <algorithm>
#include <limits>

#include "kernels/pass_linear/few_rows.h"
#include "kernels/pass_linear/tile.cuh"

namespace mambify::kernels::linear {
namespace {

static_assert(kMostFewRows == kMostStagedRows);

// A unit is a tile of the tensor cores, 16 rows of the weight, and up to half of another: as many
// as let all multiprocessors have about the same number. Gated, it is the gate's and the up matrix'
// rows of 8 outputs.
constexpr int kTileRows = 16, kMostExtra = 8;
constexpr int kRowVectors = kChunk / 8;  // of a row in a chunk, of 16 bytes
constexpr int kParts = kChunk / 32;      // vectors of a row that a thread has
constexpr int kTileVectors = kTileRows * kRowVectors;
constexpr int kColumns = kMostStagedRows + 1;  // of sums, in different banks
constexpr int kMostStages = 5, kFewestStages = 3;

// How a product is divided.
struct Division {
  int split;   // warps that share a unit
  int units;   // of all multiprocessors
  int extra;   // rows of a unit besides its tile
  int stages;  // chunks on their way to a warp
};

// Vectors of a chunk on its way to a warp, and numbers of a unit's sums on their way to the warp
// that adds them: [2 buffers][warps][rows of the weight][columns], so that warps wait once for one
// another.
__host__ __device__ inline int step_of(int extra, int streamed_rows) {
  return kTileVectors + (extra + streamed_rows) * kRowVectors;
}
__host__ __device__ inline int sums_of(int extra) {
  return 2 * kWarps * (kTileRows + extra) * kColumns;
}

// The oldest of the chunks on their way to this thread has arrived.
__device__ inline void await_chunk(int stages) {
  if (stages == 5) {
    await_copies<4>();
  } else if (stages == 4) {
    await_copies<3>();
  } else {
    await_copies<2>();
  }
}

// The kernels of a layer should fit into the instruction cache together, where one too many costs
// two or three microseconds a layer: loops whose bodies need not overlap are not unrolled, and what
// a source of x does not need is not in its kernel.
//
// A thread reads 16 neighbouring bytes of two rows of a tile; that these are not the inputs that
// the instruction calls its own does not matter, since it takes the same ones of x.
template <Source kSource>
__global__ void __launch_bounds__(kThreads, 1)
    few_rows(const PassLinearParams<Bf16> p, const Division division) {
  constexpr bool kStaged = kSource != Source::streamed;
  extern __shared__ uint4 shared[];
  __shared__ Squares squares;
  start_successor();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row_in_tile = lane / 4, part = lane % 4;
  const int split = division.split, units = division.units, extra = division.extra;
  const int stages = division.stages;
  const int group = warp / split, member = warp % split;
  const int rows = static_cast<int>(p.rows), outputs = static_cast<int>(p.outputs);
  const int inputs = static_cast<int>(p.inputs), width = static_cast<int>(padded(p.inputs));
  const int chunks = (width + kChunk - 1) / kChunk, mine = (chunks - member + split - 1) / split;
  const int first_input = member * kChunk + part * 8, input_step = split * kChunk;
  const int unit_outputs = p.gated ? kTileRows / 2 : kTileRows + extra;
  const int first_unit = blockIdx.x + group * gridDim.x, unit_step = gridDim.x * (kWarps / split);
  const int step = step_of(extra, kStaged ? 0 : rows);
  uint4* ring = shared + warp * stages * step + lane;

  // What is to be asked for next: this thread's row of a unit, and from it to that 8 below.
  int next_unit = first_unit, next_chunk = 0;
  const Bf16* next = p.weight +
                     (static_cast<int64_t>(first_unit) * unit_outputs + row_in_tile) * width +
                     first_input;
  const int64_t below = static_cast<int64_t>(p.gated ? outputs : 8) * width;
  const int64_t to_unit =
      static_cast<int64_t>(unit_step) * unit_outputs * width - mine * input_step;
  const auto is_inside = [&] { return next_unit < units && mine > 0; };
  const auto advance = [&] {
    next += input_step;
    if (++next_chunk < mine) return;
    next_chunk = 0;
    next_unit += unit_step;
    next += to_unit;
  };
  const auto request_weights = [&](int slot) {
    uint4* to = ring + slot * step;
    const int left = outputs - next_unit * unit_outputs - row_in_tile;
    const int k = first_input + next_chunk * input_step;
#pragma unroll
    for (int v = 0; v < kParts; ++v) {
      const int bytes = k + v * 32 < width ? 16 : 0;  // what is not there is zero
      if (left > 0) copy_async(to + v * 32, next + v * 32, bytes);
      if (left > (p.gated ? 0 : 8)) {
        copy_async(to + (kParts + v) * 32, next + below + v * 32, bytes);
      }
      if (row_in_tile < extra && left > 16) {
        copy_async(to + kTileVectors + v * extra * 4, next + 2 * below + v * 32, bytes);
      }
    }
  };
#pragma unroll 1
  for (int slot = 0; slot < stages; ++slot) {
    if (is_inside()) request_weights(slot);
    advance();
  }
  uint4 norm_weight[kNormVectors];
  if constexpr (kStaged) load_norm(p, norm_weight);
  const int my_row = lane % kMostStagedRows;  // whose place and scale this thread knows
  const int place = p.scatter && my_row < rows ? p.tokens[my_row].place : my_row;
  const bool has_row = row_in_tile < rows;
  const Bf16* x = has_row ? row_of_x(p, row_in_tile) : p.x;
  wait_for_predecessor();
  if (blockIdx.x >= units) return;  // it has kept its place from a second block of the next kernel
  float* sums_of_units = reinterpret_cast<float*>(shared + kWarps * stages * step);
  const int streamed_x = kTileVectors + extra * kRowVectors;  // in a stage
  if constexpr (kStaged) {
    Bf16* staged = reinterpret_cast<Bf16*>(sums_of_units + sums_of(extra));
    stage<kSource>(p, norm_weight, staged, squares);
    x = staged + row_in_tile * static_cast<int>(staged_stride<Bf16>(p.inputs));
  }
  const float scale = my_row < rows ? scale_of(p, squares, my_row) : 0.0f;
  const auto request_x = [&](int slot, int chunk) {
    if constexpr (!kStaged) {
      if (!has_row) return;
      uint4* to = ring + slot * step + streamed_x;
#pragma unroll
      for (int v = 0; v < kParts; ++v) {
        const int k = first_input + chunk * input_step + v * 32;
        if (k < width) copy_async(to + v * rows * 4, x + k, min(16, (inputs - k) * 2));
      }
    }
  };
  int asked = 0;
#pragma unroll 1
  for (int slot = 0; slot < stages; ++slot) {
    if (mine > 0) request_x(slot, asked);
    asked = asked + 1 < mine ? asked + 1 : 0;
    end_copy_group();
  }

  int slot = 0, buffer = 0, finisher = member;
#pragma unroll 1
  for (int unit = first_unit; unit < units; unit += unit_step, buffer ^= 1) {
    float sums[4] = {}, extra_sums[4] = {};
    // Units are finished by other warps each time, because those wait for memory.
    finisher = finisher == 0 ? split - 1 : finisher - 1;
    const int output = unit * unit_outputs + lane;
    const bool finishes = lane < unit_outputs && output < outputs;
    const float residual = finishes ? residual_of(p, finisher, output) : 0.0f;
#pragma unroll 1
    for (int c = 0; c < mine; ++c) {
      await_chunk(stages);
      const uint4* from = ring + slot * step;
#pragma unroll
      for (int v = 0; v < kParts; ++v) {
        const int k = first_input + c * input_step + v * 32;
        uint4 b{}, half{};
        if (has_row && k < width) {
          b = kStaged ? *reinterpret_cast<const uint4*>(x + k) : from[streamed_x + v * rows * 4];
        }
        multiply_vectors(sums, from[v * 32], from[(kParts + v) * 32], b);
        if (extra > 0) {
          if (row_in_tile < extra) half = from[kTileVectors + v * extra * 4];
          multiply_vectors(extra_sums, half, half, b);
        }
      }
      if (is_inside()) {
        request_weights(slot);
        request_x(slot, next_chunk);
      }
      advance();
      end_copy_group();
      slot = slot + 1 == stages ? 0 : slot + 1;
    }

    const int unit_rows = kTileRows + extra;
    float* partial = sums_of_units + (buffer * kWarps + group * split) * unit_rows * kColumns;
    float* out = partial + (member * unit_rows + row_in_tile) * kColumns + part * 2;
    out[0] = sums[0];
    out[1] = sums[1];
    out[8 * kColumns] = sums[2];
    out[8 * kColumns + 1] = sums[3];
    if (row_in_tile < extra) {
      out[16 * kColumns] = extra_sums[0];
      out[16 * kColumns + 1] = extra_sums[1];
    }
    wait_for_warps(group, split);
#pragma unroll 1
    for (int row = finisher; row < rows; row += split) {
      const float scale_of_row = __shfl_sync(~0u, scale, row);
      const int place_of_row = __shfl_sync(~0u, place, row);
      if (!finishes) continue;
      float sum = 0, up = 0;
      const float* in = partial + lane * kColumns + row;
#pragma unroll
      for (int m = 0; m < kWarps; ++m) {
        if (m >= split) break;
        sum = __fadd_rn(sum, in[m * unit_rows * kColumns]);
        if (p.gated) up = __fadd_rn(up, in[(m * unit_rows + 8) * kColumns]);
      }
      finish(p, place_of_row, output, scale_of_row, sum, up,
             row == finisher ? residual : residual_of(p, row, output));
    }
  }
}

template <Source kSource>
int64_t bytes_of(const PassLinearParams<Bf16>& p, const Division& division) {
  constexpr bool kStaged = kSource != Source::streamed;
  const int step = step_of(division.extra, kStaged ? 0 : static_cast<int>(p.rows));
  return int64_t{kWarps} * division.stages * step * 16 +
         sums_of(division.extra) * int64_t{sizeof(float)} +
         (kStaged ? staged_bytes_of<Bf16>(p.rows, p.inputs) : 0);
}

int64_t units_of(const PassLinearParams<Bf16>& p, int extra) {
  return divide_up(p.outputs, p.gated ? kTileRows / 2 : kTileRows + extra);
}
// Units that the busiest warps have.
int64_t rounds_of(int64_t units, int split) {
  return divide_up(units, multiprocessors() * (kWarps / split));
}

// With the fewest rows to the busiest multiprocessor, and as many chunks on their way as fit.
template <Source kSource>
Division division_of(const PassLinearParams<Bf16>& p) {
  // Of two kernels that follow one another both have room on a multiprocessor.
  constexpr int64_t kMostBytes = 110 << 10;
  constexpr int kStages = 4;  // whose room a larger unit may not take
  Division best{.split = split_of(p.inputs), .units = 0, .extra = 0, .stages = kStages};
  int64_t fewest = std::numeric_limits<int64_t>::max();
  for (int extra = 0; extra <= (p.gated ? 0 : kMostExtra); ++extra) {
    Division division = best;
    division.extra = extra;
    const int64_t units = units_of(p, extra);
    const int64_t rows = rounds_of(units, division.split) * (kTileRows + extra);
    if (rows >= fewest || (extra > 0 && bytes_of<kSource>(p, division) > kMostBytes)) continue;
    fewest = rows;
    division.units = static_cast<int>(units);
    best = division;
  }
  best.stages = kMostStages;
  while (best.stages > kFewestStages && bytes_of<kSource>(p, best) > kMostBytes) --best.stages;
  return best;
}

template <Source kSource>
void start_few_rows(const PassLinearParams<Bf16>& p, CudaStream stream) {
  const Division division = division_of<kSource>(p);
  int64_t bytes = bytes_of<kSource>(p, division);
  // Two blocks on one multiprocessor would leave another without any: it may be free while others
  // still run the kernel before. A block of more than half the memory is alone. Behind another such
  // block, which every multiprocessor has, there is room for one smaller block as it is; products
  // with a norm follow those without one. Where everything is on its way before the kernel begins,
  // that is no gain.
  const int64_t chunks = divide_up(divide_up(p.inputs, kChunk), division.split) *
                         rounds_of(division.units, division.split);
  const bool overlaps = p.norm != nullptr && chunks > division.stages;
  if (!overlaps) bytes = std::max(bytes, multiprocessor_shared_bytes() / 2);
  start(few_rows<kSource>, dim3(static_cast<unsigned>(multiprocessors())), bytes, stream, p,
        division);
}

}  // namespace

void few_rows_cuda(const PassLinearParams<Bf16>& p, CudaStream stream) {
  const bool is_staged = staged_bytes_of<Bf16>(p.rows, p.inputs) > 0;
  if (p.conv_weight != nullptr) return start_few_rows<Source::convolved>(p, stream);
  // Several rows would take the room of the weights on their way.
  if (p.norm != nullptr || (is_staged && p.rows == 1))
    return start_few_rows<Source::rows>(p, stream);
  start_few_rows<Source::streamed>(p, stream);
}

}  // namespace mambify::kernels::linear
