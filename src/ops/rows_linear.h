// The linear map of decoding: the bits of a row do not depend on how many others there are.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ops/panel_memory.h"

namespace mambify {

enum class WeightFormat {
  native,  // the weight's own type
  int8,    // integers with a scale for 32 inputs of an output; inputs become the like to meet them
};

// A weight matrix laid out for rows_linear.
struct PackedMatrix {
  // What a panel is made of: weights as they are, or groups of them (kernels/rows_linear/params.h).
  enum class Layout { weights, int8, grid4, grid8 };
  Layout layout = Layout::weights;
  at::ScalarType type = at::kFloat;  // the weight's
  int64_t outputs = 0, inputs = 0;
  // [panels, inputs, outputs of a panel] of the weight's type, or bytes [panels, groups, bytes of a
  // group]
  at::Tensor panels;
};

// weight: [outputs, inputs], fp32 or bf16, on the CPU. Native weights that are those of a quantised
// file are packed as such when nothing is lost: products have the same bits and read less memory.
PackedMatrix pack_matrix(const at::Tensor& weight, WeightFormat format, PanelMemory& memory);

// x W^T. x: [rows, inputs] of the weight's type; returns [rows, outputs] of that type, accumulated
// in fp32. Not differentiable.
at::Tensor rows_linear(const at::Tensor& x, const PackedMatrix& weight);

// Whether that holds on this processor: a matrix of this shape gives rows the same bits alone and
// among so many others. Takes four products.
bool rows_are_invariant(const PackedMatrix& weight, int64_t rows);

}  // namespace mambify
