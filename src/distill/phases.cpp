#include <algorithm>

#include "convert/layer_plan.h"
#include "core/error.h"
#include "distill/stages.h"
#include "distill/stepwise.h"

namespace mambify {
namespace {

int64_t step_limit(const StageSection& stage) {
  if (stage.steps > 0) return stage.steps;
  return (stage.tokens + stage.batch_tokens - 1) / stage.batch_tokens;
}

// Sets which layers are the newest Mamba layers of each phase.
void follow_conversions(const Recipe& recipe, const std::vector<MixerKind>& layers,
                        std::vector<Phase>& phases) {
  std::vector<bool> has_attention;
  std::vector<int64_t> newest;
  for (int64_t layer = 0; layer < std::ssize(layers); ++layer) {
    has_attention.push_back(layers[layer] == MixerKind::attention);
    if (!has_attention.back()) newest.push_back(layer);
  }
  for (Phase& phase : phases) {
    if (phase.keep_attention) {
      std::vector<int64_t> converted;
      for (int64_t layer = 0; layer < std::ssize(layers); ++layer) {
        const bool keeps = std::ranges::binary_search(*phase.keep_attention, layer);
        const bool has = has_attention[layer];
        if (keeps && !has && recipe.stages[phase.stage].kind != StageKind::stepwise) {
          throw Error(
              "recipe: keep_attention of [[stage]] {}: layer {} is to keep attention and is a "
              "Mamba layer already",
              phase.stage, layer);
        }
        if (keeps || !has) continue;
        converted.push_back(layer);
        has_attention[layer] = false;
      }
      if (!converted.empty()) newest = std::move(converted);
    }
    phase.newest = newest;
  }
}

}  // namespace

bool needs_teacher(const StageSection& stage) {
  switch (stage.kind) {
    case StageKind::align:
    case StageKind::stepwise:  // which is lent its attention, too
      return true;
    case StageKind::distill:
      return stage.kl_weight > 0;
    case StageKind::sft:
      return false;
    case StageKind::dpo:
      return stage.reference == ReferenceModel::teacher;
  }
  return true;
}

std::vector<Phase> plan_phases(const Recipe& recipe, const std::vector<MixerKind>& layers) {
  const auto n_layer = std::ssize(layers);
  std::vector<Phase> phases;
  for (size_t i = 0; i < recipe.stages.size(); ++i) {
    const StageSection& stage = recipe.stages[i];
    Phase whole;
    whole.stage = static_cast<int64_t>(i);
    whole.steps = step_limit(stage);
    whole.seconds = 60 * stage.minutes;
    std::vector<std::vector<int64_t>> kept;
    for (const std::string& round : stage.keep_attention) {
      kept.push_back(kept_layers(round, recipe.model, n_layer,
                                 fmt::format("keep_attention of [[stage]] {}", i)));
    }
    if (stage.kind == StageKind::stepwise) {
      for (Phase& round : stepwise_rounds(whole, kept)) phases.push_back(std::move(round));
    } else {
      if (!kept.empty()) whole.keep_attention = kept.front();
      phases.push_back(whole);
    }
  }
  follow_conversions(recipe, layers, phases);
  return phases;
}

std::vector<int64_t> kept_layers(const std::string& keep_attention, const ModelSection& model,
                                 int64_t n_layer, const std::string& key) {
  try {
    if (keep_attention.find('/') == std::string::npos) {
      return parse_layer_list(keep_attention, n_layer);
    }
    const LayerFraction fraction = parse_layer_fraction(keep_attention);
    return model.layer_choice == "even"
               ? evenly_kept_layers(fraction, n_layer)
               : sensitive_kept_layers(fraction, n_layer, model.layer_choice);
  } catch (const UsageError& error) {  // written for a command line
    throw Error("recipe: {}: {}", key, error.what());
  }
}

ConvertOptions conversion(const Recipe& recipe, const ModelConfig& model,
                          std::vector<int64_t> keep_attention) {
  try {
    ConvertOptions options;
    options.attention_layers = std::move(keep_attention);
    options.mixer = parse_mixer_kind(recipe.model.mixer);
    options.init = parse_mixer_init(recipe.model.init);
    options.start = recipe.model.start == "auto" ? best_start(model, options.mixer)
                                                 : parse_mixer_start(recipe.model.start);
    options.keep_rotary = recipe.model.rotary == RotaryChoice::automatic
                              ? keeps_rotary_best(model, options.mixer, options.start)
                              : recipe.model.rotary == RotaryChoice::keep;
    options.seed = recipe.run.seed;
    return options;
  } catch (const UsageError& error) {
    throw Error("recipe: [model]: {}", error.what());
  }
}

}  // namespace mambify
