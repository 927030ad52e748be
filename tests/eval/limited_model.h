// A small random model that writes nothing but a few given tokens.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "random_model.h"
#include "text/tokenizer.h"

namespace mambify::testing {

inline Model limited_model(const Tokenizer& tokenizer, const std::vector<std::string>& tokens,
                           uint64_t seed) {
  Model model = random_model(tokenizer.vocab_size(), seed);
  model.config.tie_embeddings = false;
  model.config.max_positions = 2048;
  model.lm_head = at::zeros_like(model.embedding);
  for (const std::string& token : tokens) {
    model.lm_head[tokenizer.find_token(token).value()] = at::randn({32});
  }
  return model;
}

// What the model itself writes behind a prompt, by forward passes alone.
inline std::string greedy_text(const Model& model, const Tokenizer& tokenizer,
                               std::vector<TokenId> ids, int64_t tokens) {
  const size_t prompt = ids.size();
  for (int64_t i = 0; i < tokens; ++i) {
    const at::Tensor log_p = log_probabilities(model, ids);
    ids.push_back(static_cast<TokenId>(log_p[log_p.size(0) - 1].argmax().item<int64_t>()));
  }
  return tokenizer.decode(std::span(ids).subspan(prompt));
}

}  // namespace mambify::testing
