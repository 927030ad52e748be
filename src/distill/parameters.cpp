#include "distill/parameters.h"

#include <algorithm>
#include <optional>
#include <set>

#include "core/error.h"

namespace mambify {
namespace {

// The layer of "blocks.3.mixer.in_proj", if it is no longer attention.
std::optional<int64_t> mamba_mixer_layer(const Model& model, const std::string& name) {
  constexpr std::string_view kPrefix = "blocks.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  size_t digits = 0;
  const int64_t layer = std::stol(name.substr(kPrefix.size()), &digits);
  const std::string_view rest = std::string_view(name).substr(kPrefix.size() + digits);
  if (!rest.starts_with(".mixer.")) return std::nullopt;
  if (kind_of(model.blocks[layer].mixer) == MixerKind::attention) return std::nullopt;
  return layer;
}

// 0 for what the stage does not train.
double peak_rate(const StageSection& stage, std::optional<int64_t> mixer_layer,
                 std::span<const int64_t> newest) {
  if (!mixer_layer) return stage.train == TrainSet::all ? stage.learning_rate_rest : 0;
  const bool trained =
      stage.train != TrainSet::newest || std::ranges::find(newest, *mixer_layer) != newest.end();
  return trained ? stage.learning_rate : 0;
}

// Decay pulls projections towards zero; norms, biases, decay rates and taps have other rest points.
bool decays(const std::string& name, const at::Tensor& tensor) {
  return tensor.dim() >= 2 && !name.ends_with(".A_log") && !name.ends_with(".conv_weight");
}

}  // namespace

bool matches_pattern(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern.front() != '*') {
    return !text.empty() && pattern.front() == text.front() &&
           matches_pattern(pattern.substr(1), text.substr(1));
  }
  for (size_t skipped = 0; skipped <= text.size(); ++skipped) {
    if (matches_pattern(pattern.substr(1), text.substr(skipped))) return true;
  }
  return false;
}

std::vector<TrainedParameter> select_parameters(Model& master, Model& compute,
                                                const StageSection& stage,
                                                std::span<const int64_t> newest) {
  struct Candidate {
    TrainedParameter parameter;
    at::Tensor* in_master;
  };
  std::vector<Candidate> all;
  for_each_parameter(master, [&](const std::string& name, at::Tensor& tensor) {
    const double rate = peak_rate(stage, mamba_mixer_layer(master, name), newest);
    all.push_back({{name, {}, {}, rate, decays(name, tensor) ? stage.weight_decay : 0}, &tensor});
  });
  size_t next = 0;
  for_each_parameter(compute, [&](const std::string&, at::Tensor& tensor) {
    all[next++].parameter.compute = tensor;
  });

  const bool tied = master.lm_head.is_same(master.embedding);
  std::vector<TrainedParameter> trained;
  std::set<std::string> used;
  for (auto& [parameter, in_master] : all) {
    bool frozen = parameter.peak_rate == 0;
    for (const std::string& pattern : stage.freeze) {
      if (!matches_pattern(pattern, parameter.name)) continue;
      used.insert(pattern);
      frozen = true;
    }
    parameter.compute.set_requires_grad(!frozen);
    if (frozen) continue;
    *in_master = parameter.compute.scalar_type() == at::kFloat
                     ? parameter.compute
                     : in_master->to(parameter.compute.device(), at::kFloat);
    parameter.master = *in_master;
    trained.push_back(std::move(parameter));
  }
  if (tied) master.lm_head = master.embedding;
  for (const std::string& pattern : stage.freeze) {
    if (!used.contains(pattern)) {
      throw Error("freeze of stage {}: no parameter is named \"{}\"; names are such as \"{}\"",
                  name_of(stage.kind), pattern, "blocks.3.mixer.in_proj");
    }
  }
  if (trained.empty()) {
    throw Error("stage {}: every parameter is frozen or has a learning rate of 0",
                name_of(stage.kind));
  }
  return trained;
}

}  // namespace mambify
