#include "model/projection.h"

#include <ATen/ops/linear.h>

#include "model/model.h"

namespace mambify {
namespace {

// The other two-dimensional parameters are read elementwise; an embedding of its own is looked up.
bool is_multiplied_by(const std::string& name) {
  return !name.ends_with(".conv_weight") && !name.ends_with(".A_log") && name != "embedding";
}

}  // namespace

PackedWeights::PackedWeights(const Model& model) {
  Model view = model;  // tensors are handles: nothing is copied
  const auto pack = [&](const at::Tensor& weight) {
    matrices_.emplace(weight.unsafeGetTensorImpl(), pack_matrix(weight));
  };
  for_each_parameter(view, [&](const std::string& name, at::Tensor& tensor) {
    if (tensor.dim() == 2 && is_multiplied_by(name) && name != "lm_head") pack(tensor);
  });
  pack(model.lm_head);
}

const PackedMatrix* PackedWeights::find(const at::Tensor& weight) const {
  const auto found = matrices_.find(weight.unsafeGetTensorImpl());
  return found == matrices_.end() ? nullptr : &found->second;
}

int64_t PackedWeights::bytes() const {
  int64_t total = 0;
  for (const auto& [weight, matrix] : matrices_) {
    total += static_cast<int64_t>(matrix.panels.nbytes());
  }
  return total;
}

at::Tensor project(const PackedWeights* packed, const at::Tensor& x, const at::Tensor& weight,
                   const at::Tensor& bias) {
  const PackedMatrix* matrix = packed != nullptr ? packed->find(weight) : nullptr;
  if (matrix == nullptr) return at::linear(x, weight, bias);
  const at::Tensor y = rows_linear(x, *matrix);
  return bias.defined() ? y + bias : y;
}

}  // namespace mambify
