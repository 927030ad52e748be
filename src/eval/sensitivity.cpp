#include "eval/sensitivity.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/progress.h"
#include "eval/agreement.h"
#include "eval/passes.h"
#include "ops/rms_norm.h"

namespace mambify {
namespace {

// The data, and the activations that do not change while one candidate after another is tried.
struct CachedPass {
  Predictions next;
  Context context;
  at::Tensor teacher_hidden;       // of the predicted rows
  std::vector<at::Tensor> inputs;  // of each block of the model so far, [tokens, d_model]
};

class LayerSwapper {
 public:
  LayerSwapper(const Model& teacher, const Model& converted, std::span<const Document> documents,
               int64_t max_tokens)
      : teacher_(teacher), converted_(converted), current_(teacher) {
    // Mixers find their sizes in the config; which layer has which kind stands in the blocks.
    current_.config.mamba1 = converted.config.mamba1;
    current_.config.mamba2 = converted.config.mamba2;

    std::vector<TokenSpan> spans;
    int64_t total = 0;
    for (const Document& document : documents) {
      if (max_tokens > 0 && total >= max_tokens) break;
      spans.emplace_back(document.ids);
      total += static_cast<int64_t>(document.ids.size());
    }
    for (const Pass& pass : make_passes(spans)) {
      CachedPass cached;
      cached.next = predictions(pass, [&](int64_t d, int64_t t) { return documents[d].counts[t]; });
      if (cached.next.rows.numel() == 0) continue;
      tokens_ += cached.next.rows.numel();
      cached.teacher_hidden = pass_hidden(teacher, pass, cached.next.rows);
      // the teacher has attention, so its context has the rotary tables any of the mixers needs
      cached.context = make_context(teacher.config, pass.segments, teacher.embedding.options());
      cached.inputs.resize(teacher.blocks.size());
      cached.inputs[0] = embed(teacher, pass.ids.to(teacher.embedding.device()));
      passes_.push_back(std::move(cached));
    }
    if (tokens_ == 0) throw Error("no token of the data counts, so there is nothing to compare");
    refresh(0);
  }

  int64_t tokens() const { return tokens_; }

  // KL to the teacher, nats per token, when this layer is converted too.
  double kl_with(int64_t layer) const {
    Model trial = current_;  // tensors are handles: nothing is copied
    trial.blocks[layer].mixer = converted_.blocks[layer].mixer;
    double kl = 0;
    for (const CachedPass& pass : passes_) {
      at::Tensor x = pass.inputs[layer];
      for (int64_t i = layer; i < trial.config.n_layer(); ++i) {
        x = block_forward(trial, i, x, pass.context);
      }
      x = rms_norm(x.index_select(0, pass.next.rows.to(x.device())), trial.final_norm,
                   trial.config.norm_eps);
      kl += compare_rows(trial, x, teacher_, pass.teacher_hidden).kl.sum().item<double>();
    }
    return kl / static_cast<double>(tokens_);
  }

  void convert(int64_t layer) {
    current_.blocks[layer].mixer = converted_.blocks[layer].mixer;
    refresh(layer);
  }

 private:
  void refresh(int64_t layer) {
    for (CachedPass& pass : passes_) {
      for (int64_t i = layer; i + 1 < current_.config.n_layer(); ++i) {
        pass.inputs[i + 1] = block_forward(current_, i, pass.inputs[i], pass.context);
      }
    }
  }

  const Model& teacher_;
  const Model& converted_;
  Model current_;
  std::vector<CachedPass> passes_;
  int64_t tokens_ = 0;
};

std::vector<int64_t> find_candidates(const Model& teacher, const Model& converted) {
  if (teacher.config.n_layer() != converted.config.n_layer() ||
      teacher.config.d_model != converted.config.d_model) {
    throw Error("the student has {} layers of width {}, its teacher {} of width {}",
                converted.config.n_layer(), converted.config.d_model, teacher.config.n_layer(),
                teacher.config.d_model);
  }
  std::vector<int64_t> candidates;
  for (int64_t layer = 0; layer < teacher.config.n_layer(); ++layer) {
    if (teacher.config.layers[layer] == MixerKind::attention &&
        converted.config.layers[layer] != MixerKind::attention) {
      candidates.push_back(layer);
    }
  }
  if (candidates.empty()) throw Error("no attention layer of the teacher is converted");
  return candidates;
}

bool less_kl(const LayerKl& a, const LayerKl& b) { return a.kl < b.kl; }

// How many layers the greedy search tries, for the progress bar.
int64_t count_trials(int64_t layers, int64_t limit) {
  int64_t trials = 0;
  for (int64_t left = layers; left > 0; --left) trials += std::min(left, limit);
  return trials;
}

}  // namespace

SensitivityResult sensitivity(const Model& teacher, const Model& converted,
                              std::span<const Document> documents,
                              const SensitivityOptions& options) {
  const c10::InferenceMode inference;
  const std::vector<int64_t> candidates = find_candidates(teacher, converted);
  const auto count = static_cast<int64_t>(candidates.size());
  const int64_t limit = options.candidates > 0 ? options.candidates : count;
  LayerSwapper swapper(teacher, converted, documents, options.max_tokens);
  SensitivityResult result;
  result.layers = teacher.config.n_layer();
  result.tokens = swapper.tokens();
  Progress progress("sensitivity", count + count_trials(count, limit), "layers");
  int64_t done = 0;
  for (const int64_t layer : candidates) {
    result.alone.push_back({layer, swapper.kl_with(layer)});
    progress.update(++done, fmt::format("layer {} kl {:.4f}", layer, result.alone.back().kl));
  }

  std::vector<LayerKl> left = result.alone;
  std::stable_sort(left.begin(), left.end(), less_kl);
  while (!left.empty()) {
    const auto tried = std::min<int64_t>(limit, static_cast<int64_t>(left.size()));
    std::vector<LayerKl> trials(left.begin(), left.begin() + tried);
    for (LayerKl& trial : trials) {
      trial.kl = swapper.kl_with(trial.layer);
      progress.update(++done, fmt::format("{} converted", result.order.size()));
    }
    const auto best = std::min_element(trials.begin(), trials.end(), less_kl);
    swapper.convert(best->layer);
    result.order.push_back(*best);
    left.erase(left.begin() + (best - trials.begin()));
  }
  return result;
}

nlohmann::json to_json(const SensitivityResult& result) {
  nlohmann::json order = nlohmann::json::array(), order_kl = order, alone = order;
  for (const LayerKl& step : result.order) {
    order.push_back(step.layer);
    order_kl.push_back(step.kl);
  }
  for (const LayerKl& one : result.alone) {
    alone.push_back({{"layer", one.layer}, {"kl", one.kl}});
  }
  return {{"layers", result.layers},
          {"tokens", result.tokens},
          {"order", order},
          {"order_kl", order_kl},
          {"alone", alone}};
}

}  // namespace mambify
