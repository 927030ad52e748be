// Models of a given shape with random weights, for measuring speed without a checkpoint.
#pragma once

#include <c10/core/ScalarType.h>

#include "core/file.h"
#include "model/model.h"

namespace mambify {

// Reads a TOML file with the sizes of a model:
//   vocab_size, d_model, n_layer, tie_embeddings (default: false), and architecture, one of
//   "llama" (the default): n_heads, n_kv_heads (default: n_heads), head_dim (default: d_model /
//     n_heads), intermediate_size, mixer ("attention", "mamba1" or "mamba2"; default: "attention")
//     and attention_layers (a list; the others have `mixer`; default: none);
//   "mamba1": expand (default: 2), d_state (16), dt_rank (d_model / 16, rounded up);
//   "mamba2": expand (2), d_state (128), head_dim (64), n_groups (1).
// alike: layers of one kind are the same tensors, which is faster to make; for weights that are
// copied before they are used. Throws Error for an unknown key, a missing one, or a size out of
// range.
Model random_model(const fs::path& shape, at::ScalarType dtype, uint64_t seed, bool alike = false);

}  // namespace mambify
