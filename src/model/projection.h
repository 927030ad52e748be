// The products with a model's weight matrices: as they are, or laid out once for decoding.
#pragma once

#include <ATen/core/Tensor.h>

#include <unordered_map>

#include "ops/rows_linear.h"

namespace mambify {

struct Model;

// Copies of a model's weight matrices in the layout of rows_linear.
class PackedWeights {
 public:
  // Packs every matrix that a forward pass multiplies by. Weights that change afterwards, or belong
  // to another model, are not those that were packed.
  explicit PackedWeights(const Model& model);

  // The packed form of one of the model's tensors; null for any other.
  const PackedMatrix* find(const at::Tensor& weight) const;
  int64_t bytes() const;

 private:
  std::unordered_map<const at::TensorImpl*, PackedMatrix> matrices_;
};

// x weight^T + bias, through the packed weights when there are any and weight is among them.
// x: [rows, inputs]; weight: [outputs, inputs]; bias: [outputs] or undefined.
at::Tensor project(const PackedWeights* packed, const at::Tensor& x, const at::Tensor& weight,
                   const at::Tensor& bias = {});

}  // namespace mambify
