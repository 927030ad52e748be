// Models of a given shape with random weights, for measuring speed without a checkpoint.
#pragma once

#include <c10/core/ScalarType.h>

#include "core/file.h"
#include "model/model.h"

namespace mambify {

// Reads a TOML file with the sizes of a Llama, some of whose layers may be Mamba layers:
//   vocab_size, d_model, n_layer, n_heads, n_kv_heads (default: n_heads),
//   head_dim (default: d_model / n_heads), intermediate_size, tie_embeddings (default: false),
//   mixer ("attention", "mamba1" or "mamba2"; default: "attention") and
//   attention_layers (a list; the others have `mixer`; default: none).
// Throws Error for an unknown key, a missing one, or a size out of range.
Model random_model(const fs::path& shape, at::ScalarType dtype, uint64_t seed);

}  // namespace mambify
