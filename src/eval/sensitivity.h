// Which attention layers a model can spare.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <vector>

#include "data/dataset.h"
#include "model/model.h"

namespace mambify {

struct SensitivityOptions {
  int64_t max_tokens = 2048;  // stop after the document that reaches so many; 0: all
  int64_t candidates = 0;     // layers tried in a step of the greedy search, the cheapest alone
                              // first; 0: every one that is left
};

struct LayerKl {
  int64_t layer = 0;
  double kl = 0;  // teacher to the model with the layers converted, nats per token
};

struct SensitivityResult {
  int64_t layers = 0;          // of the model
  int64_t tokens = 0;          // predicted
  std::vector<LayerKl> alone;  // every candidate converted alone, by layer
  std::vector<LayerKl> order;  // greedily: the layer that adds least to those before it, and the KL
                               // with all up to it converted
};

// Candidates are the layers in which the teacher has attention and `converted` a Mamba mixer; only
// those mixers are taken from it. It is a fresh conversion of the teacher, or a trained student.
// Throws Error where the two models do not fit, or no token counts.
SensitivityResult sensitivity(const Model& teacher, const Model& converted,
                              std::span<const Document> documents,
                              const SensitivityOptions& options);

// {"layers", "tokens", "order": [layer], "order_kl": [kl], "alone": [{"layer", "kl"}]}: what
// `convert --layer-choice` reads (convert/layer_plan.h).
nlohmann::json to_json(const SensitivityResult& result);

}  // namespace mambify
