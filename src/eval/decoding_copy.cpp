#include "eval/decoding_copy.h"

#include <c10/core/InferenceMode.h>

#include <optional>

namespace mambify {
namespace {

Model on_host(Model model) {
  const c10::InferenceMode inference;
  to(model, at::kCPU, model.embedding.scalar_type());
  return model;
}

std::optional<int> cuda_device(const at::Device& device) {
  return device.is_cpu() ? std::nullopt : std::optional<int>(device.index());
}

}  // namespace

DecodingCopy::DecodingCopy(const Model& model)
    : model_(on_host(model)),
      packed_(model_, WeightFormat::native, cuda_device(model.embedding.device())) {}

}  // namespace mambify
