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

// Weight: float or Bf16.
template <typename Weight>
struct PackParams {
  int64_t outputs = 0;
  int64_t inputs = 0;
  const Weight* weight = nullptr;  // [outputs, inputs], contiguous
  Weight* packed = nullptr;
};

template <typename Weight>
void pack_cpu(const PackParams<Weight>& p);

template <typename Weight>
struct RowsLinearParams {
  int64_t rows = 0;
  int64_t inputs = 0;
  int64_t outputs = 0;
  const float* x = nullptr;  // [rows, inputs]
  int64_t x_stride = 0;      // elements from one row to the next
  const Weight* packed = nullptr;
  float* y = nullptr;  // [rows, outputs]
  int64_t y_stride = 0;
};

// The definition, accumulated in double.
template <typename Weight>
void rows_linear_reference(const RowsLinearParams<Weight>& p);

// Fast, parallel over panels. Every output is one chain of fused multiply-adds over the inputs in
// order, whatever the rows, the threads or the vectors' width.
template <typename Weight>
void rows_linear_cpu(const RowsLinearParams<Weight>& p);

}  // namespace mambify::kernels
