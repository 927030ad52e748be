// What the model's tests read: safetensors as tensors, and the small checkpoints' names.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <string>

#include "io/safetensors.h"
#include "model/load.h"
#include "testing.h"

namespace mambify::testing {

inline at::Tensor tensor_of(const TensorMap& file, const std::string& name) {
  const TensorView& view = file.at(name);
  if (view.dtype == DType::i64) {
    return at::from_blob(const_cast<std::byte*>(view.bytes.data()), view.shape, at::kLong).clone();
  }
  at::Tensor tensor = at::empty(view.shape, at::kFloat);
  dequantize(view, tensor.data_ptr<float>());
  return tensor;
}

inline constexpr const char* kCheckpoints[] = {"tiny-llama", "tiny-llama3-rope", "tiny-mamba",
                                               "tiny-mamba2"};

// The rows of a [batch, length] tensor of ids laid end to end.
inline Segments segments_of(const at::Tensor& ids) {
  Segments segments{{0}};
  for (int64_t i = 0; i < ids.size(0); ++i) segments.starts.push_back((i + 1) * ids.size(1));
  return segments;
}

inline at::Tensor logits_of(const Model& model, const at::Tensor& ids,
                            const PackedWeights* packed = nullptr) {
  c10::InferenceMode inference;
  Context context = make_context(model.config, segments_of(ids), model.embedding.options());
  context.packed = packed;
  return logits(model, hidden_states(model, ids.flatten(), context), packed);
}

}  // namespace mambify::testing
