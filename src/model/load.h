// Checkpoints to models and back. One weight-name table per layout serves both ways.
#pragma once

#include "io/checkpoint.h"
#include "model/model.h"

namespace mambify {

// Reads any supported checkpoint. Errors name the file, the tensor or key, what was found and what
// was expected; a tensor the model does not know is an error too.
Model load_model(const fs::path& path, at::ScalarType dtype = at::kFloat);
Model load_model(const Checkpoint& checkpoint, at::ScalarType dtype = at::kFloat);

// The config alone; cheap, reads no weights.
ModelConfig read_config(const Checkpoint& checkpoint);

// Writes config.json, model.safetensors and, for a hybrid, mamba_config.json into an existing
// folder. Wrap it in write_directory_atomically for a whole checkpoint with its tokenizer.
void save_model(const Model& model, const fs::path& folder, at::ScalarType dtype = at::kFloat);

}  // namespace mambify
