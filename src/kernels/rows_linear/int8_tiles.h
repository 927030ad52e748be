// The inner products of int8 rows_linear, once per instruction set.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/rows_linear/params.h"

namespace mambify::kernels {

// A group of a row's inputs as integers: x = values * scale.
struct Int8Inputs {
  int8_t values[kGroup];  // -127 to 127
  float scale;
  int32_t start;  // -128 * their sum: takes back the 128 that is in every weight
};

// Some rows by one panel. x: [rows, groups]; y: [rows, kPanel].
using Int8Tile = void (*)(const Int8Group* panel, int64_t groups, const Int8Inputs* x, float* y);

// One way to multiply: tiles of 1, 2, ... rows, up to as many as there are registers for.
inline constexpr int64_t kMostTileRows = 8;
struct Int8Tiles {
  const char* name;
  std::span<const Int8Tile> by_rows;
};

// What this machine can run, the fastest first. All give the same bits: products within a group are
// of integers, and between groups there is one chain of fused multiply-adds.
std::span<const Int8Tiles> int8_tiles();

template <typename Value>
void rows_linear_int8(const RowsLinearParams<Int8Group, Value>& p, const Int8Tiles& tiles);

}  // namespace mambify::kernels
