#include "distill/parameters.h"

#include <set>

#include "core/error.h"

namespace mambify {
namespace {

// "blocks.3.mixer.in_proj" of a layer that is no longer attention.
bool is_mamba_mixer(const Model& model, const std::string& name) {
  constexpr std::string_view kPrefix = "blocks.";
  if (!name.starts_with(kPrefix)) return false;
  size_t digits = 0;
  const size_t layer = std::stoul(name.substr(kPrefix.size()), &digits);
  if (!std::string_view(name).substr(kPrefix.size() + digits).starts_with(".mixer.")) return false;
  return kind_of(model.blocks[layer].mixer) != MixerKind::attention;
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
                                                const StageSection& stage) {
  struct Candidate {
    TrainedParameter parameter;
    at::Tensor* in_master;
  };
  std::vector<Candidate> all;
  for_each_parameter(master, [&](const std::string& name, at::Tensor& tensor) {
    const double rate = is_mamba_mixer(master, name)   ? stage.learning_rate
                        : stage.train == TrainSet::all ? stage.learning_rate_rest
                                                       : 0;
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
