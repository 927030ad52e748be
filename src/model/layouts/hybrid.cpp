// The published hybrids, MambaInLlama and Mamba2InLlama (github.com/jxiw/MambaInLlama):
// mamba_config.json beside a Llama config, and the mixers' tensors under "mamba.".
#include "core/error.h"
#include "model/layouts/layout.h"

namespace mambify {
namespace {

std::string mixer_prefix(int64_t layer) { return fmt::format("model.layers.{}.mamba.", layer); }

// The published config does not say which Mamba a mixer is; its tensors do.
MixerKind kind_in(const Checkpoint& checkpoint, int64_t layer) {
  const std::string prefix = mixer_prefix(layer);
  if (checkpoint.tensors.contains(prefix + "in_proj.weight")) return MixerKind::mamba2;
  if (checkpoint.tensors.contains(prefix + "in_proj_x.weight")) return MixerKind::mamba1;
  throw Error(
      "{}: layer {} is not in attn_layers of mamba_config.json, and neither {}in_proj.weight "
      "(Mamba-2) nor {}in_proj_x.weight (Mamba-1) is there",
      checkpoint.path.string(), layer, prefix, prefix);
}

void check_divides(const JsonReader& json, const char* part_name, int64_t part,
                   const char* whole_name, int64_t whole) {
  if (part < 1 || whole % part != 0) {
    throw Error("{}: {} {} is not a multiple of {} {}", json.origin(), whole_name, whole, part_name,
                part);
  }
}

Mamba1Config read_mamba1(const JsonReader& json, const JsonReader& ssm, int64_t d_model,
                         int64_t d_inner, int64_t d_xb) {
  Mamba1Config mamba;
  mamba.d_inner = d_inner;
  mamba.d_xb = d_xb;
  mamba.d_state = ssm.has("d_state") ? ssm.require_between("d_state", 1, kMaxWidth) : 16;
  check_divides(json, "d_state", mamba.d_state, "d_xb", d_xb);
  check_divides(json, "d_state", mamba.d_state, "d_inner", d_inner);
  mamba.dt_rank = (d_model + 15) / 16;
  mamba.b_groups = d_xb / mamba.d_state;
  mamba.c_groups = d_inner / mamba.d_state;
  mamba.dt_bias_scale = 2;
  return mamba;
}

Mamba2Config read_mamba2(const JsonReader& json, const JsonReader& ssm, int64_t d_inner,
                         int64_t d_xb) {
  Mamba2Config mamba;
  mamba.n_heads = ssm.require_between("ngroups", 1, kMaxWidth);
  check_divides(json, "ssm_cfg.ngroups", mamba.n_heads, "d_inner", d_inner);
  mamba.head_dim = d_inner / mamba.n_heads;
  mamba.d_state =
      ssm.has("d_state") ? ssm.require_between("d_state", 1, kMaxWidth) : mamba.head_dim;
  check_divides(json, "the head width", mamba.head_dim, "d_xb", d_xb);
  check_divides(json, "d_state", mamba.d_state, "d_xb", d_xb);
  mamba.x_groups = d_xb / mamba.head_dim;
  mamba.b_groups = d_xb / mamba.d_state;
  mamba.c_groups = mamba.n_heads;
  check_divides(json, "d_xb / head width", mamba.x_groups, "ssm_cfg.ngroups", mamba.n_heads);
  check_divides(json, "d_xb / d_state", mamba.b_groups, "ssm_cfg.ngroups", mamba.n_heads);
  mamba.norm_group_size = mamba.head_dim;
  if (!json.has("mambify")) return mamba;
  const JsonReader added = json.object("mambify");
  mamba.conv_activation = added.get<bool>("conv_activation", true);
  mamba.gate = added.get<bool>("gate", true);
  mamba.norm = added.get<bool>("norm", true);
  mamba.rotary = added.get<bool>("rotary", false);
  return mamba;
}

nlohmann::json added_json(const Mamba2Config& mamba) {
  nlohmann::json json = nlohmann::json::object();
  if (!mamba.conv_activation) json["conv_activation"] = false;
  if (!mamba.gate) json["gate"] = false;
  if (!mamba.norm) json["norm"] = false;
  if (mamba.rotary) json["rotary"] = true;
  return json;
}

}  // namespace

void read_mamba_config(const Checkpoint& checkpoint, ModelConfig& config) {
  const JsonReader json(*checkpoint.mamba_config, (checkpoint.path / "mamba_config.json").string());
  for (MixerKind& kind : config.layers) kind = MixerKind::mamba2;
  std::vector<bool> attends(config.layers.size(), false);
  for (int64_t layer : json.require<std::vector<int64_t>>("attn_layers")) {
    if (layer < 0 || layer >= config.n_layer()) {
      throw Error("{}: attn_layers names layer {}, the model has layers 0 to {}", json.origin(),
                  layer, config.n_layer() - 1);
    }
    attends[layer] = true;
  }
  if (json.has("n_layer") && json.require<int64_t>("n_layer") != config.n_layer()) {
    throw Error("{}: n_layer {} differs from num_hidden_layers {} of config.json", json.origin(),
                json.require<int64_t>("n_layer"), config.n_layer());
  }
  for (int64_t i = 0; i < config.n_layer(); ++i) {
    config.layers[i] = attends[i] ? MixerKind::attention : kind_in(checkpoint, i);
  }
  const JsonReader ssm = json.object("ssm_cfg");
  const int64_t expand = ssm.has("expand") ? ssm.require_between("expand", 1, 64) : 1;
  const int64_t d_inner =
      json.has("d_inner") ? json.require_between("d_inner", 1, kMaxWidth) : expand * config.d_model;
  const int64_t d_xb = json.require_between("d_xb", 1, d_inner);
  check_divides(json, "d_xb", d_xb, "d_inner", d_inner);
  if (config.count(MixerKind::mamba1) > 0) {
    config.mamba1 = read_mamba1(json, ssm, config.d_model, d_inner, d_xb);
  }
  if (config.count(MixerKind::mamba2) > 0) config.mamba2 = read_mamba2(json, ssm, d_inner, d_xb);
  if (config.mamba2.rotary && config.mamba2.d_state != config.attention.head_dim) {
    throw Error("{}: rotary needs d_state {} to equal the attention's head_dim {}", json.origin(),
                config.mamba2.d_state, config.attention.head_dim);
  }
}

void write_mamba_config(const ModelConfig& config, const fs::path& folder) {
  const bool is_mamba2 = config.count(MixerKind::mamba2) > 0;
  if (is_mamba2 && config.count(MixerKind::mamba1) > 0) {
    throw Error("{}: mamba_config.json describes one kind of Mamba mixer, this model has both",
                folder.string());
  }
  const Mamba1Config& mamba1 = config.mamba1;
  const Mamba2Config& mamba2 = config.mamba2;
  std::vector<int64_t> attention_layers;
  for (int64_t i = 0; i < config.n_layer(); ++i) {
    if (config.layers[i] == MixerKind::attention) attention_layers.push_back(i);
  }
  nlohmann::json json{{"d_model", config.d_model},
                      {"ssm_cfg",
                       {{"expand", 1},
                        {"ngroups", is_mamba2 ? mamba2.n_heads : mamba1.c_groups},
                        {"d_state", is_mamba2 ? mamba2.d_state : mamba1.d_state}}},
                      {"rms_norm_eps", config.norm_eps},
                      {"d_inner", is_mamba2 ? mamba2.d_inner() : mamba1.d_inner},
                      {"d_xb", is_mamba2 ? mamba2.d_x() : mamba1.d_xb},
                      {"intermediate_size", config.intermediate_size},
                      {"hidden_act", "silu"},
                      {"n_layer", config.n_layer()},
                      {"attn_layers", attention_layers}};
  if (const nlohmann::json added = added_json(mamba2); is_mamba2 && !added.empty()) {
    json["mambify"] = added;
  }
  write_file_atomically(folder / "mamba_config.json", json.dump(2) + "\n");
}

void add_hybrid_weights(Model& model, int64_t layer, std::vector<WeightSlot>& slots) {
  const std::string prefix = mixer_prefix(layer);
  const int64_t d_model = model.config.d_model;
  const auto add = [&](const char* name, std::vector<int64_t> shape, at::Tensor& tensor) {
    slots.push_back(weight(prefix + name, std::move(shape), tensor));
  };
  if (auto* m = std::get_if<Mamba2>(&model.blocks[layer].mixer)) {
    const Mamba2Config& sizes = model.config.mamba2;
    add("in_proj.weight", {sizes.in_proj_rows(), d_model}, m->in_proj);
    add("conv1d.weight", {sizes.conv_channels(), 1, sizes.d_conv}, m->conv_weight);
    add("conv1d.bias", {sizes.conv_channels()}, m->conv_bias);
    add("dt_bias", {sizes.n_heads}, m->dt_bias);
    add("A_log", {sizes.n_heads}, m->A_log);
    add("D", {sizes.n_heads}, m->D);
    add("norm.weight", {sizes.d_inner()}, m->norm);
    add("out_proj.weight", {d_model, sizes.d_inner()}, m->out_proj);
    return;
  }
  Mamba1& m = std::get<Mamba1>(model.blocks[layer].mixer);
  const Mamba1Config& sizes = model.config.mamba1;
  add("in_proj_x.weight", {sizes.d_xb, d_model}, m.in_proj_x);
  add("in_proj_z.weight", {sizes.d_inner, d_model}, m.in_proj_z);
  add("B_proj.weight", {sizes.b_groups * sizes.d_state, d_model}, m.B_proj);
  add("C_proj.weight", {sizes.c_groups * sizes.d_state, d_model}, m.C_proj);
  add("dt_proj_down.weight", {sizes.dt_rank, d_model}, m.dt_proj_down);
  add("dt_proj.weight", {sizes.d_inner, sizes.dt_rank}, m.dt_proj);
  add("dt_proj.bias", {sizes.d_inner}, m.dt_bias);
  add("conv1d.weight", {sizes.d_inner, 1, sizes.d_conv}, m.conv_weight);
  add("conv1d.bias", {sizes.d_inner}, m.conv_bias);
  add("A_log", {sizes.d_inner, sizes.d_state}, m.A_log);
  add("D", {sizes.d_inner}, m.D);
  add("out_proj.weight", {d_model, sizes.d_inner}, m.out_proj);
}

}  // namespace mambify
