// A model that was loaded for forward passes, as an engine takes it.
#pragma once

#include "model/model.h"

namespace mambify {

// Decoding takes its weights from the host, whatever the device it works on, which is that of the
// model: on the CPU both share their tensors.
class DecodingCopy {
 public:
  explicit DecodingCopy(const Model& model);
  DecodingCopy(const DecodingCopy&) = delete;
  DecodingCopy& operator=(const DecodingCopy&) = delete;

  const Model& model() const { return model_; }
  const PackedWeights& packed() const { return packed_; }

 private:
  Model model_;  // on the CPU
  PackedWeights packed_;
};

}  // namespace mambify
