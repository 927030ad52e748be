// A batch of the data as a model reads it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "data/batch.h"
#include "model/model.h"

namespace mambify {

at::Tensor ids_of(const Batch& batch, const Model& model);      // [tokens] int64
at::Tensor labels_of(const Batch& batch, const Model& model);   // [tokens] int64
at::Tensor weights_of(const Batch& batch, const Model& model);  // [tokens] fp32
// [n] int64 on the model's device, which does not make the host wait.
at::Tensor copied_to_device(const std::vector<int64_t>& values, const Model& model);
// Where the loss counts a token, [n] int64.
at::Tensor counted_places_of(const Batch& batch, const Model& model);

}  // namespace mambify
