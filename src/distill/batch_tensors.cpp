#include "distill/batch_tensors.h"

#include <ATen/ops/from_blob.h>

#include "ops/cuda.h"

namespace mambify {
namespace {

template <typename T>
at::Tensor copied(const std::vector<T>& values, at::ScalarType dtype, const Model& model) {
  const at::Tensor view = at::from_blob(const_cast<T*>(values.data()), {std::ssize(values)}, dtype);
  const at::Device device = model.embedding.device();
  return device.is_cpu() ? view.clone() : sent_to(view, device);
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

at::Tensor copied_to_device(const std::vector<int64_t>& values, const Model& model) {
  return copied(values, at::kLong, model);
}

at::Tensor counted_places_of(const Batch& batch, const Model& model) {
  std::vector<int64_t> places;
  for (size_t i = 0; i < batch.weights.size(); ++i) {
    if (batch.weights[i] != 0) places.push_back(static_cast<int64_t>(i));
  }
  return copied_to_device(places, model);
}

}  // namespace mambify
