// What a checkpoint holds and what running it takes, told without reading its weights.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "io/tensor_file.h"
#include "model/config.h"

namespace mambify {

// Parameters by the part of the model that they belong to.
struct ParameterCounts {
  int64_t embedding = 0;
  int64_t attention = 0;
  int64_t mamba = 0;
  int64_t mlp = 0;
  int64_t norms = 0;   // outside the mixers
  int64_t output = 0;  // an output matrix of its own; 0 when it is the embedding
  int64_t other = 0;   // what is stored but trained by nothing, such as rotary tables

  int64_t total() const { return embedding + attention + mamba + mlp + norms + output + other; }
};

// By the tensors' names, in Hugging Face's or GGUF's spelling.
ParameterCounts count_parameters(const TensorMap& tensors);

// Elements stored in each type ("bf16", "q4_1").
std::map<std::string, int64_t> count_by_dtype(const TensorMap& tensors);

// Bytes that one sequence of `context` tokens takes while it is decoded. Recurrent state is fp32
// whatever the weights are and does not depend on the context.
struct SequenceMemory {
  int64_t kv_cache = 0;
  int64_t recurrent_state = 0;
};
SequenceMemory sequence_memory(const ModelConfig& config, int64_t context, int64_t bytes_per_value);

}  // namespace mambify
