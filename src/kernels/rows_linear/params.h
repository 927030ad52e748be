// Contract of rows_linear: y = x W^T for few or many rows x, with the bits of a row independent of
// how many others there are. W is packed, so that decoding streams it once from first to last.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"

namespace mambify::kernels {

// Outputs that are computed side by side. Packed weights are panels of so many outputs each:
// [panels, inputs, kPanel], panels = ceil(outputs / kPanel), what is beyond the outputs being zero.
// Within a panel and an input, float weights stand in order; Bf16 weights j and j + kPanel / 2
// stand side by side, which makes two vectors of floats of one load.
inline constexpr int64_t kPanel = 32;

inline int64_t panels_of(int64_t outputs) { return (outputs + kPanel - 1) / kPanel; }
// Where output j of a panel, 0 <= j < kPanel, stands; the first argument chooses the type.
inline int64_t place_in_panel(const float*, int64_t j) { return j; }
inline int64_t place_in_panel(const Bf16*, int64_t j) {
  return j < kPanel / 2 ? 2 * j : 2 * (j - kPanel / 2) + 1;
}

// Inputs that share a scale where weights are int8.
inline constexpr int64_t kGroup = 32;
inline int64_t groups_of(int64_t inputs) { return (inputs + kGroup - 1) / kGroup; }

// A panel's int8 weights of one group of inputs: weight = q * scale, -127 <= q <= 127. A panel is
// so many groups, [panels, groups]; what is beyond the inputs and the outputs is q = 0.
//
// The scale of an output is its largest magnitude in the group over 127, rounded up to Bf16. A
// smaller one than fp32 has as a normal number is 0; that of a group with NaN or infinity is NaN.
struct Int8Group {
  // q + 128, as the instructions that multiply bytes take one side unsigned; the four inputs that
  // they add up stand together.
  uint8_t weights[kGroup / 4][kPanel][4];
  Bf16 scales[kPanel];  // placed as Bf16 weights are
};

// A panel's weights of one group of inputs that lie on grids, as those of a quantised checkpoint
// do: weight = step * q + base in fp32, rounded to the weights' own type. The step and the base of
// an output are half precision numbers by their bits. Such a panel stands for the very weights that
// it was packed from, in a third to a sixth of their bytes; a product has the same bits.
struct Grid4Group {                    // as Q4_0 and Q4_1 of GGUF; 0 <= q < 16
  uint32_t codes[kGroup / 8][kPanel];  // the first of eight inputs in the lowest four bits
  uint32_t scales[kPanel];  // the step in the lower half of a word, the base in the upper
};
struct Grid8Group {                    // as Q8_0; -127 <= q <= 127, base = 0
  uint32_t codes[kGroup / 4][kPanel];  // q + 128, of four inputs
  uint32_t steps[kPanel / 2];          // of outputs j and, in the upper half, j + kPanel / 2
};

// Weight: float or Bf16. Packed: the same, or one of the groups above.
template <typename Weight, typename Packed = Weight>
struct PackParams {
  int64_t outputs = 0;
  int64_t inputs = 0;
  const Weight* weight = nullptr;  // [outputs, inputs], contiguous
  Packed* packed = nullptr;
};

template <typename Weight>
void pack_cpu(const PackParams<Weight>& p);
template <typename Weight>
void pack_int8_cpu(const PackParams<Weight, Int8Group>& p);
// Grid: Grid4Group or Grid8Group. False, and what is packed means nothing, unless all weights are
// found to lie on grids, bit for bit, and come in whole groups of inputs.
template <typename Weight, typename Grid>
bool pack_grid_cpu(const PackParams<Weight, Grid>& p);

// Weight: float, Bf16 or one of the groups above. Value: float or Bf16, what x and y are, and
// weights on grids; accumulated in float.
template <typename Weight, typename Value = float>
struct RowsLinearParams {
  int64_t rows = 0;
  int64_t inputs = 0;
  int64_t outputs = 0;
  const Value* x = nullptr;  // [rows, inputs]
  int64_t x_stride = 0;      // elements from one row to the next
  const Weight* packed = nullptr;
  Value* y = nullptr;  // [rows, outputs]
  int64_t y_stride = 0;
};

// The definition, accumulated in double. With int8 weights each row's group of inputs becomes
// integers, too: x = q * scale, scale = largest magnitude / 127 in fp32 under the rules of weights,
// q = x * (1 / scale) rounded to the nearest, ties to even. The product of two groups is that of
// their integers, which is exact, times both scales.
template <typename Weight, typename Value>
void rows_linear_reference(const RowsLinearParams<Weight, Value>& p);
template <typename Value>
void rows_linear_reference(const RowsLinearParams<Int8Group, Value>& p);

// Fast, parallel over panels. Every output is one chain of fused multiply-adds over the inputs in
// order, with int8 weights over the groups, whatever the rows, the threads or the vectors' width.
template <typename Weight, typename Value>
void rows_linear_cpu(const RowsLinearParams<Weight, Value>& p);
template <typename Value>
void rows_linear_cpu(const RowsLinearParams<Int8Group, Value>& p);

}  // namespace mambify::kernels
