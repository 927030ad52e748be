// A small Llama with random weights, made the same each time.
#pragma once

#include <ATen/ATen.h>

#include "model/model.h"

namespace mambify::testing {

// Three layers, width 32, 4 heads over 2 key/value heads of 8. The weights are large enough that
// the predictions differ clearly between tokens and between seeds.
inline Model random_model(int64_t vocab_size, uint64_t seed) {
  at::manual_seed(seed);
  Model model;
  ModelConfig& config = model.config;
  config.vocab_size = vocab_size;
  config.d_model = 32;
  config.intermediate_size = 48;
  config.tie_embeddings = true;
  config.max_positions = 256;
  config.layers.assign(3, MixerKind::attention);
  config.attention.n_heads = 4;
  config.attention.n_kv_heads = 2;
  config.attention.head_dim = 8;
  model.embedding = model.lm_head = at::randn({vocab_size, 32}) * 0.4;
  model.final_norm = at::ones({32});
  for (int i = 0; i < 3; ++i) {
    Attention attention;
    attention.q_proj = at::randn({32, 32}) * 0.3;
    attention.k_proj = at::randn({16, 32}) * 0.3;
    attention.v_proj = at::randn({16, 32}) * 0.3;
    attention.o_proj = at::randn({32, 32}) * 0.3;
    Block block;
    block.input_norm = block.post_norm = at::ones({32});
    block.mixer = attention;
    block.mlp = {at::randn({48, 32}) * 0.3, at::randn({48, 32}) * 0.3, at::randn({32, 48}) * 0.3};
    model.blocks.push_back(block);
  }
  return model;
}

// log p(next token | tokens up to t) of one sequence alone, fp64: [T, vocab_size].
inline at::Tensor log_probabilities(const Model& model, const std::vector<int32_t>& ids) {
  const at::Tensor tokens = at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong);
  const Context context =
      make_context(model.config, Segments::one(tokens.size(0)), model.embedding.options());
  return logits(model, hidden_states(model, tokens, context)).to(at::kDouble).log_softmax(1);
}

}  // namespace mambify::testing
