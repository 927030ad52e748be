// A layout is how one family of checkpoints names its config keys and its tensors. A new
// architecture is one more file beside this one and one more line in layouts.cpp.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "io/json_reader.h"
#include "model/model.h"

namespace mambify {

// One tensor of a file and where it lives in a model. Several model tensors may be stacked in one
// file tensor along the first dimension ("in_proj" of Mamba holds x and z).
struct WeightSlot {
  struct Part {
    at::Tensor* tensor;
    int64_t rows;
  };
  std::string name;
  std::vector<int64_t> shape;  // in the file; a middle dimension of 1 is dropped in the model
  std::vector<Part> parts;
  int64_t interleaved_heads = 0;  // > 0: rows of that many heads in GGUF's rotary order
};

// A slot of one part.
WeightSlot weight(std::string name, std::vector<int64_t> shape, at::Tensor& tensor);

struct LayoutFormat {
  const char* name;
  bool (*matches)(const Checkpoint& checkpoint);
  ModelConfig (*read_config)(const Checkpoint& checkpoint);
  // The table, for reading and for writing. `model` has its config and its blocks' mixers' kinds.
  std::vector<WeightSlot> (*weights)(Model& model);
  // Tensors that real files hold and no model needs.
  bool (*ignores)(const std::string& tensor);
};

// The format of a checkpoint. Throws Error naming the architecture found and those supported.
const LayoutFormat& format_of(const Checkpoint& checkpoint);

// A token id that a config gives as a number or as a list of which the first counts.
std::optional<int64_t> first_token_id(const JsonReader& config, const std::string& key);

// llama.cpp: Llama and the hybrids made from it; also the base of the GGUF table.
ModelConfig read_llama_config(const Checkpoint& checkpoint);
std::vector<WeightSlot> llama_weights(Model& model);
void write_llama_config(const ModelConfig& config, const fs::path& folder);

// hybrid.cpp: mamba_config.json, read on top of a Llama config.
void read_mamba_config(const Checkpoint& checkpoint, ModelConfig& config);
void write_mamba_config(const ModelConfig& config, const fs::path& folder);
void add_hybrid_weights(Model& model, int64_t layer, std::vector<WeightSlot>& slots);

// gguf_llama.cpp
ModelConfig read_gguf_llama_config(const Checkpoint& checkpoint);
std::vector<WeightSlot> gguf_llama_weights(Model& model);

// mamba.cpp: transformers' pure Mamba-1 and Mamba-2.
ModelConfig read_mamba1_config(const Checkpoint& checkpoint);
std::vector<WeightSlot> mamba1_weights(Model& model);
void write_mamba1_config(const ModelConfig& config, const fs::path& folder);
ModelConfig read_mamba2_config(const Checkpoint& checkpoint);
std::vector<WeightSlot> mamba2_weights(Model& model);
void write_mamba2_config(const ModelConfig& config, const fs::path& folder);

// Limits on sizes from outside: beyond them a config lies, and products of two stay in int64.
inline constexpr int64_t kMaxWidth = int64_t{1} << 20, kMaxVocab = int64_t{1} << 24,
                         kMaxLayers = 1 << 12;

}  // namespace mambify
