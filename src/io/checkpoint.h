// A checkpoint as a user names it: a GGUF file, or a folder in Hugging Face layout.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "io/gguf.h"
#include "io/tensor_file.h"

namespace mambify {

struct Checkpoint {
  fs::path path;
  TensorMap tensors;                           // of all shards
  std::optional<GgufFile> gguf;                // when the checkpoint is a GGUF file
  nlohmann::json config;                       // config.json; null for GGUF
  std::optional<nlohmann::json> mamba_config;  // mamba_config.json of a hybrid

  // The tensor, or an Error naming the checkpoint and the tensor.
  const TensorView& require(const std::string& name) const;
};

// A folder needs config.json and model.safetensors, or model.safetensors.index.json with its
// shards (each tensor in exactly one of them).
Checkpoint open_checkpoint(const fs::path& path);

}  // namespace mambify
