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
constexpr int kTaps = 4;  // of a convolution of the outputs

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

// A row of a product whose outputs are convolved.
struct RowOfRing {
  int position = 0;  // in its sequence
  int base = 0;      // first place of its sequence
  int slot = 0;      // its place behind that
  int earlier = 0;   // of the three positions before its own, those that are rows before it

  RowOfRing() = default;
  __device__ RowOfRing(const PassLinearParams<Bf16>& p, int row)
      : position(p.tokens[row].position) {
    const int slots = static_cast<int>(p.conv.ring_slots);
    slot = position % slots;
    base = p.tokens[row].place - slot;
    // Tokens of a sequence follow one another.
    const auto is_row = [&](int before) {
      return p.tokens[row - before].place == place_before(before, slots);
    };
    while (earlier < min(row, kTaps - 1) && is_row(earlier + 1)) ++earlier;
  }
  // Of a position before its own.
  __device__ int place_before(int before, int slots) const {
    return base + slot - before + (slot < before ? slots : 0);
  }
};

// What the convolution of an output reads besides the rows of the product, by its thread and early,
// because it comes from memory: inputs of earlier passes, and the filter.
struct Past {
  static_assert(kTaps == 4);
  int earlier;         // see RowOfRing
  float x[kTaps - 1];  // of the positions that are not rows, zeros for others
  uint2 filter;        // of four numbers of 16 bits
  float bias;

  // By a whole warp, whose thread r has what `rows` says of row r. An output that is not convolved
  // reads another's.
  __device__ void load(const PassLinearParams<Bf16>& p, const RowOfRing& rows, int row,
                       int output) {
    RowOfRing own;
    own.position = __shfl_sync(~0u, rows.position, row);
    own.base = __shfl_sync(~0u, rows.base, row);
    own.slot = __shfl_sync(~0u, rows.slot, row);
    earlier = __shfl_sync(~0u, rows.earlier, row);
    const int channel = min(output, static_cast<int>(p.conv.channels) - 1);
#pragma unroll
    for (int tap = 0; tap < kTaps - 1; ++tap) {
      const int before = kTaps - 1 - tap;
      const int64_t place = own.place_before(before, static_cast<int>(p.conv.ring_slots));
      const bool is_read = before > earlier && before <= own.position;
      x[tap] = is_read ? as_float(p.y[place * p.y_stride + channel]) : 0.0f;
    }
    filter = *reinterpret_cast<const uint2*>(p.conv.weight + channel * kTaps);
    bias = as_float(p.conv.bias[channel]);
  }

  // recent: of the positions that are rows; newest: of the row itself.
  __device__ Bf16 convolved(const float (&recent)[kTaps - 1], float newest) const {
    const float weights[kTaps] = {
        __uint_as_float(filter.x << 16), __uint_as_float(filter.x & 0xffff0000u),
        __uint_as_float(filter.y << 16), __uint_as_float(filter.y & 0xffff0000u)};
    float sum = bias;
#pragma unroll
    for (int tap = 0; tap < kTaps - 1; ++tap) {
      sum = multiply_add(weights[tap], tap < kTaps - 1 - earlier ? x[tap] : recent[tap], sum);
    }
    return rounded<Bf16>(silu(multiply_add(weights[kTaps - 1], newest, sum)));
  }
};

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
//
// kStaged: x lies in shared memory; otherwise chunks of it come as those of the weights do.
template <bool kStaged, bool kConvolves>
__global__ void __launch_bounds__(kThreads, 1)
    few_rows(const PassLinearParams<Bf16> params, const Division division) {
  PassLinearParams<Bf16> p = params;  // of what it never has there is no code
  if constexpr (kConvolves) p.gated = false, p.bias = nullptr, p.residual = nullptr;
  extern __shared__ uint4 shared[];
  __shared__ Squares squares;
  start_successor();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row_in_tile = lane / 4, part = lane % 4;
  const int split = kConvolves ? kWarps : division.split;
  const int units = division.units, extra = division.extra;
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
  // Units are finished by other warps each time, because those wait for memory.
  const auto next_finisher = [&](int finisher) { return finisher == 0 ? split - 1 : finisher - 1; };
  int finisher = next_finisher(member);
  RowOfRing ring_rows{};
  Past past;
  // With as many warps as there may be rows each has one.
  const auto load_past = [&](int unit) {
    if (unit * unit_outputs >= p.conv.channels || finisher >= rows) return;
    past.load(p, ring_rows, finisher, unit * unit_outputs + lane);
  };
  if constexpr (kConvolves) {
    ring_rows = RowOfRing(p, min(my_row, rows - 1));
    load_past(first_unit);
  }
  const bool has_row = row_in_tile < rows;
  const Bf16* x = has_row ? row_of_x(p, row_in_tile) : p.x;
  wait_for_predecessor();
  if (blockIdx.x >= units) return;  // it has kept its place from a second block of the next kernel
  float* sums_of_units = reinterpret_cast<float*>(shared + kWarps * stages * step);
  const int streamed_x = kTileVectors + extra * kRowVectors;  // in a stage
  if constexpr (kStaged) {
    Bf16* staged = reinterpret_cast<Bf16*>(sums_of_units + sums_of(extra));
    stage_rows(p, norm_weight, staged, squares);
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

  int slot = 0, buffer = 0;
#pragma unroll 1
  for (int unit = first_unit; unit < units; unit += unit_step, buffer ^= 1) {
    float sums[4] = {}, extra_sums[4] = {};
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
    const auto finished_row = [&](int row, float scale_of_row, float of_residual) {
      float sum = 0, up = 0;
      const float* in = partial + lane * kColumns + row;
#pragma unroll
      for (int m = 0; m < kWarps; ++m) {
        if (m >= split) break;
        sum = __fadd_rn(sum, in[m * unit_rows * kColumns]);
        if (p.gated) up = __fadd_rn(up, in[(m * unit_rows + 8) * kColumns]);
      }
      return finished(p, output, scale_of_row, sum, up, of_residual);
    };
#pragma unroll 1
    for (int row = finisher; row < rows; row += split) {
      const float scale_of_row = __shfl_sync(~0u, scale, row);
      const int64_t place_of_row = __shfl_sync(~0u, place, row);
      float recent_scales[kTaps - 1];
#pragma unroll
      for (int tap = 0; kConvolves && tap < kTaps - 1; ++tap) {
        recent_scales[tap] = __shfl_sync(~0u, scale, max(row - (kTaps - 1) + tap, 0));
      }
      if (!finishes) continue;
      const Bf16 y =
          finished_row(row, scale_of_row, row == finisher ? residual : residual_of(p, row, output));
      p.y[place_of_row * p.y_stride + output] = y;
      if (!kConvolves || output >= p.conv.channels) continue;
      float recent[kTaps - 1] = {};
      if (past.earlier > 0) {
#pragma unroll
        for (int tap = 0; tap < kTaps - 1; ++tap) {
          recent[tap] = as_float(
              finished_row(max(row - (kTaps - 1) + tap, 0), recent_scales[tap], /*residual=*/0));
        }
      }
      p.conv.y[place_of_row * p.conv.y_stride + output] = past.convolved(recent, as_float(y));
    }
    finisher = next_finisher(finisher);
    if constexpr (kConvolves) load_past(unit + unit_step);
  }
}

template <bool kStaged>
int64_t bytes_of(const PassLinearParams<Bf16>& p, const Division& division) {
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
template <bool kStaged>
Division division_of(const PassLinearParams<Bf16>& p) {
  // Of two kernels that follow one another both have room on a multiprocessor.
  constexpr int64_t kMostBytes = 112 << 10;
  Division best{.split = split_of(p.inputs), .units = 0, .extra = 0, .stages = kFewestStages};
  int64_t fewest = std::numeric_limits<int64_t>::max();
  for (int extra = 0; extra <= (p.gated ? 0 : kMostExtra); ++extra) {
    Division division = best;
    division.extra = extra;
    const int64_t units = units_of(p, extra);
    const int64_t rows = rounds_of(units, division.split) * (kTileRows + extra);
    if (rows >= fewest || (extra > 0 && bytes_of<kStaged>(p, division) > kMostBytes)) continue;
    fewest = rows;
    division.units = static_cast<int>(units);
    best = division;
  }
  best.stages = kMostStages;
  while (best.stages > kFewestStages && bytes_of<kStaged>(p, best) > kMostBytes) --best.stages;
  return best;
}

template <bool kStaged, bool kConvolves = false>
void start_few_rows(const PassLinearParams<Bf16>& p, CudaStream stream) {
  const Division division = division_of<kStaged>(p);
  int64_t bytes = bytes_of<kStaged>(p, division);
  // Two blocks on one multiprocessor would leave another without any: it may be free while others
  // still run the kernel before. A block of more than half the memory is alone. Behind another such
  // block, which every multiprocessor has, there is room for one smaller block as it is; products
  // with a norm follow those without one. Where everything is on its way before the kernel begins,
  // that is no gain.
  const int64_t chunks = divide_up(divide_up(p.inputs, kChunk), division.split) *
                         rounds_of(division.units, division.split);
  const bool overlaps = p.norm != nullptr && chunks > division.stages;
  if (!overlaps) bytes = std::max(bytes, multiprocessor_shared_bytes() / 2);
  start(few_rows<kStaged, kConvolves>, dim3(static_cast<unsigned>(multiprocessors())), bytes,
        stream, p, division);
}

}  // namespace

void few_rows_cuda(const PassLinearParams<Bf16>& p, CudaStream stream) {
  const bool is_staged = staged_bytes_of<Bf16>(p.rows, p.inputs) > 0;
  if (p.conv.channels > 0) return start_few_rows</*kStaged=*/true, /*kConvolves=*/true>(p, stream);
  // Several rows would take the room of the weights on their way.
  if (p.norm != nullptr || (is_staged && p.rows == 1)) return start_few_rows<true>(p, stream);
  start_few_rows<false>(p, stream);
}

}  // namespace mambify::kernels::linear
