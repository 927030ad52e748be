// Rotary position embedding (Su et al. 2021, arXiv 2104.09864), as Hugging Face's Llama has it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace mambify {

// Llama 3's stretching of the low frequencies (rope_scaling of rope_type "llama3").
struct Llama3Scaling {
  double factor = 8;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  double original_max_position_embeddings = 8192;
};

struct RopeConfig {
  double theta = 10000;
  std::optional<Llama3Scaling> llama3;
};

struct RotaryTable {
  at::Tensor cos, sin;  // [T, head_dim / 2], fp32, on the device of the positions
};

// positions: [T] int64. Frequencies and angles are computed in fp32, because the checkpoints were
// trained with those values.
RotaryTable rotary_table(const RopeConfig& config, int64_t head_dim, const at::Tensor& positions);

// Rotates the pairs (i, i + head_dim / 2) of every head ("rotate half"; not the interleaved order
// of GGUF files). x: [T, heads, head_dim]; cos, sin: [T, head_dim / 2]; returns a new tensor like x
// in its dtype, computed in fp32. Differentiable in x.
at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace mambify
