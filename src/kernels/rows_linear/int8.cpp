#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "kernels/parallel.h"
#include "kernels/rows_linear/int8_tiles.h"
#include "kernels/rows_linear/panel.h"

namespace mambify::kernels {
namespace {

// What integers up to 127 are multiplied by to reach the largest magnitude.
MAMBIFY_INLINE float scale_of(const float* x) {
  // Magnitudes are in the order of their bits, with infinity and NaN above all.
  uint32_t largest = 0;
  for (int64_t i = 0; i < kGroup; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  }
  if (largest >= 0x7f800000u) return std::numeric_limits<float>::quiet_NaN();
  const float scale = std::bit_cast<float>(largest) / 127.0f;
  return scale < std::numeric_limits<float>::min() ? 0.0f : scale;
}

MAMBIFY_INLINE void quantise(const float* x, float scale, int8_t* q) {
  if (!(scale > 0)) {
    std::fill_n(q, kGroup, int8_t{0});
    return;
  }
  const float inverse = 1 / scale;
  for (int64_t i = 0; i < kGroup; ++i) {
    q[i] = static_cast<int8_t>(static_cast<int32_t>(std::nearbyint(x[i] * inverse)));
  }
}

// The smallest bf16 that is not below x, 0 <= x or NaN.
MAMBIFY_INLINE Bf16 rounded_up(float x) {
  return {static_cast<uint16_t>((std::bit_cast<uint32_t>(x) + 0xffffu) >> 16)};
}

MAMBIFY_CLONES Bf16 quantise_weights(const float* weights, int8_t* q) {
  const Bf16 scale = rounded_up(scale_of(weights));
  quantise(weights, to_float(scale), q);
  return scale;
}

// One panel. weight: its first output's.
template <typename Weight>
void pack_panel(const Weight* weight, int64_t outputs, int64_t inputs, Int8Group* panel) {
  const int64_t groups = groups_of(inputs);
  for (int64_t g = 0; g < groups; ++g) {
    std::memset(panel[g].weights, 128, sizeof(panel[g].weights));
    std::fill_n(panel[g].scales, kPanel, Bf16{});
    const int64_t count = std::min(kGroup, inputs - g * kGroup);
    for (int64_t j = 0; j < outputs; ++j) {
      float values[kGroup] = {};
      const Weight* from = weight + j * inputs + g * kGroup;
      for (int64_t i = 0; i < count; ++i) values[i] = to_float(from[i]);
      int8_t q[kGroup];
      panel[g].scales[place_in_panel(panel[g].scales, j)] = quantise_weights(values, q);
      for (int64_t i = 0; i < kGroup; ++i) {
        panel[g].weights[i / 4][j][i % 4] = static_cast<uint8_t>(q[i] + 128);
      }
    }
  }
}

template <typename Value>
MAMBIFY_INLINE void quantise_groups(const Value* x, int64_t inputs, Int8Inputs* groups) {
  for (int64_t g = 0; g < groups_of(inputs); ++g) {
    float values[kGroup] = {};
    const int64_t count = std::min(kGroup, inputs - g * kGroup);
    for (int64_t i = 0; i < count; ++i) values[i] = to_float(x[g * kGroup + i]);
    Int8Inputs& group = groups[g];
    group.scale = scale_of(values);
    quantise(values, group.scale, group.values);
    int32_t sum = 0;
    for (int64_t i = 0; i < kGroup; ++i) sum += group.values[i];
    group.start = -128 * sum;
  }
}

MAMBIFY_CLONES void quantise_row(const float* x, int64_t inputs, Int8Inputs* groups) {
  quantise_groups(x, inputs, groups);
}
MAMBIFY_CLONES void quantise_row(const Bf16* x, int64_t inputs, Int8Inputs* groups) {
  quantise_groups(x, inputs, groups);
}

// All rows by one panel, as evenly divided as tiles allow.
template <typename Value>
void multiply_panel(const RowsLinearParams<Int8Group, Value>& p, const Int8Inputs* x,
                    std::span<const Int8Tile> tiles, int64_t index) {
  const int64_t groups = groups_of(p.inputs);
  const Int8Group* panel = p.packed + index * groups;
  const int64_t first = index * kPanel, outputs = std::min(kPanel, p.outputs - first);
  const auto most = static_cast<int64_t>(tiles.size());
  const int64_t parts = (p.rows + most - 1) / most;
  for (int64_t part = 0; part < parts; ++part) {
    const Range rows = part_of(p.rows, parts, part);
    float sums[kMostTileRows * kPanel];
    tiles[rows.end - rows.begin - 1](panel, groups, x + rows.begin * groups, sums);
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      store_outputs(sums + (row - rows.begin) * kPanel, outputs, p.y + row * p.y_stride + first);
    }
  }
}

}  // namespace

template <typename Weight>
void pack_int8_cpu(const PackParams<Weight, Int8Group>& p) {
  parallel_tasks(panels_of(p.outputs), p.outputs * p.inputs, [&](int64_t index) {
    const int64_t first = index * kPanel;
    pack_panel(p.weight + first * p.inputs, std::min(kPanel, p.outputs - first), p.inputs,
               p.packed + index * groups_of(p.inputs));
  });
}

template <typename Value>
void rows_linear_int8(const RowsLinearParams<Int8Group, Value>& p, const Int8Tiles& tiles) {
  const int64_t groups = groups_of(p.inputs);
  const auto x = std::make_unique_for_overwrite<Int8Inputs[]>(p.rows * groups);
  parallel_tasks(p.rows, p.rows * p.inputs, [&](int64_t row) {
    quantise_row(p.x + row * p.x_stride, p.inputs, x.get() + row * groups);
  });
  parallel_tasks(panels_of(p.outputs), p.rows * p.inputs * p.outputs,
                 [&](int64_t index) { multiply_panel(p, x.get(), tiles.by_rows, index); });
}

template <typename Value>
void rows_linear_cpu(const RowsLinearParams<Int8Group, Value>& p) {
  rows_linear_int8(p, int8_tiles().front());
}

template void pack_int8_cpu(const PackParams<float, Int8Group>& p);
template void pack_int8_cpu(const PackParams<Bf16, Int8Group>& p);
template void rows_linear_int8(const RowsLinearParams<Int8Group>& p, const Int8Tiles& tiles);
template void rows_linear_int8(const RowsLinearParams<Int8Group, Bf16>& p, const Int8Tiles& tiles);
template void rows_linear_cpu(const RowsLinearParams<Int8Group>& p);
template void rows_linear_cpu(const RowsLinearParams<Int8Group, Bf16>& p);

}  // namespace mambify::kernels
