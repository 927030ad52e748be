// The linear map of decoding: the bits of a row do not depend on how many others there are.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mambify {

// A weight matrix laid out for rows_linear.
struct PackedMatrix {
  at::Tensor panels;  // [panels, inputs, outputs of a panel], of the weight's type
  int64_t outputs = 0;

  int64_t inputs() const { return panels.size(1); }
};

// weight: [outputs, inputs], fp32 or bf16, on the CPU.
PackedMatrix pack_matrix(const at::Tensor& weight);

// x W^T. x: [rows, inputs] of the weight's type; returns [rows, outputs] of that type, accumulated
// in fp32. Not differentiable.
at::Tensor rows_linear(const at::Tensor& x, const PackedMatrix& weight);

}  // namespace mambify
