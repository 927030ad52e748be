// transformers' MambaForCausalLM and Mamba2ForCausalLM: blocks of a norm and a mixer, no MLP.
#include <cmath>

#include "core/error.h"
#include "model/layouts/layout.h"

namespace mambify {
namespace {

ModelConfig read_shared(const JsonReader& json, MixerKind kind) {
  ModelConfig config;
  config.vocab_size = json.require_between("vocab_size", 1, kMaxVocab);
  config.d_model = json.require_between("hidden_size", 1, kMaxWidth);
  config.norm_eps = json.get<double>("layer_norm_epsilon", 1e-5);
  config.bos_token_id = first_token_id(json, "bos_token_id");
  config.eos_token_id = first_token_id(json, "eos_token_id");
  config.layers.assign(json.require_between("num_hidden_layers", 1, kMaxLayers), kind);
  if (json.get<bool>("use_bias", false)) {
    throw Error("{}: use_bias = true is not supported", json.origin());
  }
  if (!json.get<bool>("use_conv_bias", true)) {
    throw Error("{}: use_conv_bias = false is not supported", json.origin());
  }
  const std::string activation = json.get<std::string>("hidden_act", "silu");
  if (activation != "silu") {
    throw Error("{}: hidden_act \"{}\" is not supported; \"silu\" is", json.origin(), activation);
  }
  return config;
}

int64_t read_conv(const JsonReader& json) {
  return json.has("conv_kernel") ? json.require_between("conv_kernel", 1, 64) : 4;
}

std::vector<WeightSlot> outer_weights(Model& model, void (*add_mixer)(Model&, int64_t,
                                                                      std::vector<WeightSlot>&)) {
  const ModelConfig& config = model.config;
  std::vector<WeightSlot> slots;
  slots.push_back(
      weight("backbone.embeddings.weight", {config.vocab_size, config.d_model}, model.embedding));
  for (int64_t i = 0; i < config.n_layer(); ++i) {
    slots.push_back(weight(fmt::format("backbone.layers.{}.norm.weight", i), {config.d_model},
                           model.blocks[i].input_norm));
    add_mixer(model, i, slots);
  }
  slots.push_back(weight("backbone.norm_f.weight", {config.d_model}, model.final_norm));
  if (!config.tie_embeddings) {
    slots.push_back(weight("lm_head.weight", {config.vocab_size, config.d_model}, model.lm_head));
  }
  return slots;
}

void add_mamba1(Model& model, int64_t layer, std::vector<WeightSlot>& slots) {
  const Mamba1Config& sizes = model.config.mamba1;
  Mamba1& m = std::get<Mamba1>(model.blocks[layer].mixer);
  const std::string prefix = fmt::format("backbone.layers.{}.mixer.", layer);
  const int64_t d_model = model.config.d_model, d_inner = sizes.d_inner, n = sizes.d_state;
  slots.push_back({prefix + "in_proj.weight",
                   {2 * d_inner, d_model},
                   {{&m.in_proj_x, d_inner}, {&m.in_proj_z, d_inner}}});
  slots.push_back({prefix + "x_proj.weight",
                   {sizes.dt_rank + 2 * n, d_inner},
                   {{&m.dt_proj_down, sizes.dt_rank}, {&m.B_proj, n}, {&m.C_proj, n}}});
  slots.push_back(weight(prefix + "conv1d.weight", {d_inner, 1, sizes.d_conv}, m.conv_weight));
  slots.push_back(weight(prefix + "conv1d.bias", {d_inner}, m.conv_bias));
  slots.push_back(weight(prefix + "dt_proj.weight", {d_inner, sizes.dt_rank}, m.dt_proj));
  slots.push_back(weight(prefix + "dt_proj.bias", {d_inner}, m.dt_bias));
  slots.push_back(weight(prefix + "A_log", {d_inner, n}, m.A_log));
  slots.push_back(weight(prefix + "D", {d_inner}, m.D));
  slots.push_back(weight(prefix + "out_proj.weight", {d_model, d_inner}, m.out_proj));
}

void add_mamba2(Model& model, int64_t layer, std::vector<WeightSlot>& slots) {
  const Mamba2Config& sizes = model.config.mamba2;
  Mamba2& m = std::get<Mamba2>(model.blocks[layer].mixer);
  const std::string prefix = fmt::format("backbone.layers.{}.mixer.", layer);
  const int64_t d_model = model.config.d_model;
  slots.push_back(weight(prefix + "in_proj.weight", {sizes.in_proj_rows(), d_model}, m.in_proj));
  slots.push_back(
      weight(prefix + "conv1d.weight", {sizes.conv_channels(), 1, sizes.d_conv}, m.conv_weight));
  slots.push_back(weight(prefix + "conv1d.bias", {sizes.conv_channels()}, m.conv_bias));
  slots.push_back(weight(prefix + "dt_bias", {sizes.n_heads}, m.dt_bias));
  slots.push_back(weight(prefix + "A_log", {sizes.n_heads}, m.A_log));
  slots.push_back(weight(prefix + "D", {sizes.n_heads}, m.D));
  slots.push_back(weight(prefix + "norm.weight", {sizes.d_inner()}, m.norm));
  slots.push_back(weight(prefix + "out_proj.weight", {d_model, sizes.d_inner()}, m.out_proj));
}

// transformers writes an infinite limit as {"__float__": "Infinity"} or, before 5, as Infinity.
double read_limit(const nlohmann::json& value, double infinite) {
  return value.is_number() ? value.get<double>() : infinite;
}

nlohmann::json shared_json(const ModelConfig& config, const char* type, const char* architecture) {
  nlohmann::json json{{"architectures", {architecture}},
                      {"model_type", type},
                      {"vocab_size", config.vocab_size},
                      {"hidden_size", config.d_model},
                      {"num_hidden_layers", config.n_layer()},
                      {"layer_norm_epsilon", config.norm_eps},
                      {"tie_word_embeddings", config.tie_embeddings},
                      {"hidden_act", "silu"},
                      {"use_bias", false},
                      {"use_conv_bias", true}};
  if (config.bos_token_id) json["bos_token_id"] = *config.bos_token_id;
  if (config.eos_token_id) json["eos_token_id"] = *config.eos_token_id;
  return json;
}

}  // namespace

ModelConfig read_mamba1_config(const Checkpoint& checkpoint) {
  const JsonReader json(checkpoint.config, (checkpoint.path / "config.json").string());
  ModelConfig config = read_shared(json, MixerKind::mamba1);
  config.layout = Layout::mamba1;
  config.tie_embeddings = json.get<bool>("tie_word_embeddings", true);
  Mamba1Config& mamba = config.mamba1;
  mamba.d_inner = json.has("intermediate_size")
                      ? json.require_between("intermediate_size", 1, kMaxWidth)
                      : json.require_between("expand", 1, 64) * config.d_model;
  mamba.d_xb = mamba.d_inner;
  mamba.d_state = json.require_between("state_size", 1, kMaxWidth);
  mamba.d_conv = read_conv(json);
  const bool automatic = json.has("time_step_rank") && json.json().at("time_step_rank").is_string();
  mamba.dt_rank =
      automatic ? (config.d_model + 15) / 16 : json.require_between("time_step_rank", 1, kMaxWidth);
  mamba.selects_from_x = true;
  return config;
}

ModelConfig read_mamba2_config(const Checkpoint& checkpoint) {
  const JsonReader json(checkpoint.config, (checkpoint.path / "config.json").string());
  ModelConfig config = read_shared(json, MixerKind::mamba2);
  config.layout = Layout::mamba2;
  config.tie_embeddings = json.get<bool>("tie_word_embeddings", false);
  Mamba2Config& mamba = config.mamba2;
  mamba.n_heads = json.require_between("num_heads", 1, kMaxWidth);
  mamba.head_dim = json.require_between("head_dim", 1, kMaxWidth);
  mamba.d_state = json.require_between("state_size", 1, kMaxWidth);
  mamba.x_groups = mamba.n_heads;
  mamba.b_groups = mamba.c_groups = json.require_between("n_groups", 1, mamba.n_heads);
  mamba.d_conv = read_conv(json);
  mamba.norm_eps = config.norm_eps;
  const int64_t expanded = json.require_between("expand", 1, 64) * config.d_model;
  if (mamba.d_inner() != expanded) {
    throw Error("{}: num_heads {} * head_dim {} differs from expand * hidden_size {}",
                json.origin(), mamba.n_heads, mamba.head_dim, expanded);
  }
  if (mamba.n_heads % mamba.b_groups != 0) {
    throw Error("{}: num_heads {} is not a multiple of n_groups {}", json.origin(), mamba.n_heads,
                mamba.b_groups);
  }
  mamba.norm_group_size = mamba.d_inner() / mamba.b_groups;
  if (json.has("time_step_limit")) {
    const nlohmann::json& limit = json.json().at("time_step_limit");
    if (!limit.is_array() || limit.size() != 2) {
      throw Error("{}: time_step_limit is not a list of two numbers", json.origin());
    }
    mamba.dt_min = read_limit(limit[0], 0);
    mamba.dt_max = read_limit(limit[1], mamba.dt_max);
  }
  return config;
}

std::vector<WeightSlot> mamba1_weights(Model& model) { return outer_weights(model, add_mamba1); }
std::vector<WeightSlot> mamba2_weights(Model& model) { return outer_weights(model, add_mamba2); }

void write_mamba1_config(const ModelConfig& config, const fs::path& folder) {
  nlohmann::json json = shared_json(config, "mamba", "MambaForCausalLM");
  const Mamba1Config& mamba = config.mamba1;
  json.update({{"intermediate_size", mamba.d_inner},
               {"expand", mamba.d_inner / config.d_model},
               {"state_size", mamba.d_state},
               {"conv_kernel", mamba.d_conv},
               {"time_step_rank", mamba.dt_rank}});
  write_file_atomically(folder / "config.json", json.dump(2) + "\n");
}

void write_mamba2_config(const ModelConfig& config, const fs::path& folder) {
  nlohmann::json json = shared_json(config, "mamba2", "Mamba2ForCausalLM");
  const Mamba2Config& mamba = config.mamba2;
  json.update({{"num_heads", mamba.n_heads},
               {"head_dim", mamba.head_dim},
               {"state_size", mamba.d_state},
               {"n_groups", mamba.b_groups},
               {"expand", mamba.d_inner() / config.d_model},
               {"conv_kernel", mamba.d_conv}});
  if (std::isfinite(mamba.dt_max)) json["time_step_limit"] = {mamba.dt_min, mamba.dt_max};
  write_file_atomically(folder / "config.json", json.dump(2) + "\n");
}

}  // namespace mambify
