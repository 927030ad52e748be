#include "distill/batch_tensors.h"

#include <ATen/ops/from_blob.h>

namespace mambify {
namespace {

template <typename T>
at::Tensor copied(const std::vector<T>& values, at::ScalarType dtype, const Model& model) {
  return at::from_blob(const_cast<T*>(values.data()), {std::ssize(values)}, dtype)
      .clone()
      .to(model.embedding.device());
}

}  // namespace

at::Tensor ids_of(const Batch& batch, const Model& model) {
  return copied(batch.ids, at::kLong, model);
}
at::Tensor labels_of(const Batch& batch, const Model& model) {
  return copied(batch.labels, at::kLong, model);
}
at::Tensor weights_of(const Batch& batch, const Model& model) {
  return copied(batch.weights, at::kFloat, model);
}

}  // namespace mambify
