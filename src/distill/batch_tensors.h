// A batch of the data as a model reads it.
#pragma once

#include <ATen/core/Tensor.h>

#include "data/packing.h"
#include "model/model.h"

namespace mambify {

at::Tensor ids_of(const Batch& batch, const Model& model);      // [tokens] int64
at::Tensor labels_of(const Batch& batch, const Model& model);   // [tokens] int64
at::Tensor weights_of(const Batch& batch, const Model& model);  // [tokens] fp32
// Where the loss counts a token, [n] int64.
at::Tensor counted_places_of(const Batch& batch, const Model& model);

}  // namespace mambify
