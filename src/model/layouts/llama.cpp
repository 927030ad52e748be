// transformers' LlamaForCausalLM, and the hybrids whose other layers are still Llama's.
#include "core/error.h"
#include "model/layouts/layout.h"

namespace mambify {
namespace {

RopeConfig read_rope(const JsonReader& config) {
  // transformers 5 keeps everything in rope_parameters; 4 had rope_theta and rope_scaling.
  RopeConfig rope;
  const char* key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  rope.theta = config.get<double>("rope_theta", rope.theta);
  if (!config.has(key)) return rope;
  const JsonReader scaling = config.object(key);
  rope.theta = scaling.get<double>("rope_theta", rope.theta);
  const std::string type =
      scaling.get<std::string>("rope_type", scaling.get<std::string>("type", "default"));
  if (type == "default") return rope;
  if (type != "llama3") {
    throw Error("{}: rope_type \"{}\" is not supported; \"default\" and \"llama3\" are",
                scaling.origin(), type);
  }
  rope.llama3 = Llama3Scaling{.factor = scaling.require<double>("factor"),
                              .low_freq_factor = scaling.require<double>("low_freq_factor"),
                              .high_freq_factor = scaling.require<double>("high_freq_factor"),
                              .original_max_position_embeddings =
                                  scaling.require<double>("original_max_position_embeddings")};
  return rope;
}

nlohmann::json rope_json(const RopeConfig& rope) {
  nlohmann::json json{{"rope_type", "default"}, {"rope_theta", rope.theta}};
  if (rope.llama3) {
    json["rope_type"] = "llama3";
    json["factor"] = rope.llama3->factor;
    json["low_freq_factor"] = rope.llama3->low_freq_factor;
    json["high_freq_factor"] = rope.llama3->high_freq_factor;
    json["original_max_position_embeddings"] =
        static_cast<int64_t>(rope.llama3->original_max_position_embeddings);
  }
  return json;
}

void require_absent(const JsonReader& config, const std::string& key) {
  if (config.get<bool>(key, false)) {
    throw Error("{}: {} = true is not supported", config.origin(), key);
  }
}

void add_attention_weights(const AttentionConfig& sizes, int64_t d_model, const std::string& prefix,
                           Attention& mixer, std::vector<WeightSlot>& slots) {
  const int64_t q_rows = sizes.n_heads * sizes.head_dim,
                kv_rows = sizes.n_kv_heads * sizes.head_dim;
  slots.push_back(weight(prefix + "q_proj.weight", {q_rows, d_model}, mixer.q_proj));
  slots.push_back(weight(prefix + "k_proj.weight", {kv_rows, d_model}, mixer.k_proj));
  slots.push_back(weight(prefix + "v_proj.weight", {kv_rows, d_model}, mixer.v_proj));
  slots.push_back(weight(prefix + "o_proj.weight", {d_model, q_rows}, mixer.o_proj));
  if (!sizes.bias) return;
  slots.push_back(weight(prefix + "q_proj.bias", {q_rows}, mixer.q_bias));
  slots.push_back(weight(prefix + "k_proj.bias", {kv_rows}, mixer.k_bias));
  slots.push_back(weight(prefix + "v_proj.bias", {kv_rows}, mixer.v_bias));
  slots.push_back(weight(prefix + "o_proj.bias", {d_model}, mixer.o_bias));
}

}  // namespace

ModelConfig read_llama_config(const Checkpoint& checkpoint) {
  const JsonReader json(checkpoint.config, (checkpoint.path / "config.json").string());
  ModelConfig config;
  config.layout = Layout::llama;
  config.vocab_size = json.require_between("vocab_size", 1, kMaxVocab);
  config.d_model = json.require_between("hidden_size", 1, kMaxWidth);
  config.intermediate_size = json.require_between("intermediate_size", 1, kMaxWidth);
  config.norm_eps = json.get<double>("rms_norm_eps", 1e-6);
  config.tie_embeddings = json.get<bool>("tie_word_embeddings", false);
  config.max_positions = json.get<int64_t>("max_position_embeddings", 0);
  config.bos_token_id = first_token_id(json, "bos_token_id");
  config.eos_token_id = first_token_id(json, "eos_token_id");

  AttentionConfig& attention = config.attention;
  attention.n_heads = json.require_between("num_attention_heads", 1, kMaxWidth);
  attention.n_kv_heads = json.has("num_key_value_heads")
                             ? json.require_between("num_key_value_heads", 1, attention.n_heads)
                             : attention.n_heads;
  attention.head_dim = json.has("head_dim") ? json.require_between("head_dim", 2, kMaxWidth)
                                            : config.d_model / attention.n_heads;
  if (attention.n_heads % attention.n_kv_heads != 0) {
    throw Error("{}: num_attention_heads {} is not a multiple of num_key_value_heads {}",
                json.origin(), attention.n_heads, attention.n_kv_heads);
  }
  if (attention.head_dim < 2 || attention.head_dim % 2 != 0) {
    throw Error("{}: head_dim {} is not a positive even number", json.origin(), attention.head_dim);
  }
  attention.bias = json.get<bool>("attention_bias", false);
  attention.rope = read_rope(json);
  require_absent(json, "mlp_bias");
  const std::string activation = json.get<std::string>("hidden_act", "silu");
  if (activation != "silu") {
    throw Error("{}: hidden_act \"{}\" is not supported; \"silu\" is", json.origin(), activation);
  }
  config.layers.assign(json.require_between("num_hidden_layers", 1, kMaxLayers),
                       MixerKind::attention);
  if (checkpoint.mamba_config) read_mamba_config(checkpoint, config);
  return config;
}

void write_llama_config(const ModelConfig& config, const fs::path& folder) {
  const AttentionConfig& attention = config.attention;
  nlohmann::json json{{"architectures", {"LlamaForCausalLM"}},
                      {"model_type", "llama"},
                      {"vocab_size", config.vocab_size},
                      {"hidden_size", config.d_model},
                      {"intermediate_size", config.intermediate_size},
                      {"num_hidden_layers", config.n_layer()},
                      {"num_attention_heads", attention.n_heads},
                      {"num_key_value_heads", attention.n_kv_heads},
                      {"head_dim", attention.head_dim},
                      {"attention_bias", attention.bias},
                      {"mlp_bias", false},
                      {"hidden_act", "silu"},
                      {"rms_norm_eps", config.norm_eps},
                      {"tie_word_embeddings", config.tie_embeddings},
                      {"rope_theta", attention.rope.theta},
                      {"rope_parameters", rope_json(attention.rope)}};
  if (attention.rope.llama3) json["rope_scaling"] = rope_json(attention.rope);
  if (config.max_positions > 0) json["max_position_embeddings"] = config.max_positions;
  if (config.bos_token_id) json["bos_token_id"] = *config.bos_token_id;
  if (config.eos_token_id) json["eos_token_id"] = *config.eos_token_id;
  write_file_atomically(folder / "config.json", json.dump(2) + "\n");
  if (config.count(MixerKind::attention) < config.n_layer()) write_mamba_config(config, folder);
}

std::vector<WeightSlot> llama_weights(Model& model) {
  const ModelConfig& config = model.config;
  const int64_t d_model = config.d_model, hidden = config.intermediate_size;
  std::vector<WeightSlot> slots;
  slots.push_back(
      weight("model.embed_tokens.weight", {config.vocab_size, d_model}, model.embedding));
  for (int64_t i = 0; i < config.n_layer(); ++i) {
    Block& block = model.blocks[i];
    const std::string prefix = fmt::format("model.layers.{}.", i);
    slots.push_back(weight(prefix + "input_layernorm.weight", {d_model}, block.input_norm));
    if (auto* attention = std::get_if<Attention>(&block.mixer)) {
      add_attention_weights(config.attention, d_model, prefix + "self_attn.", *attention, slots);
    } else {
      add_hybrid_weights(model, i, slots);
    }
    slots.push_back(weight(prefix + "post_attention_layernorm.weight", {d_model}, block.post_norm));
    slots.push_back(
        weight(prefix + "mlp.gate_proj.weight", {hidden, d_model}, block.mlp.gate_proj));
    slots.push_back(weight(prefix + "mlp.up_proj.weight", {hidden, d_model}, block.mlp.up_proj));
    slots.push_back(
        weight(prefix + "mlp.down_proj.weight", {d_model, hidden}, block.mlp.down_proj));
  }
  slots.push_back(weight("model.norm.weight", {d_model}, model.final_norm));
  if (!config.tie_embeddings) {
    slots.push_back(weight("lm_head.weight", {config.vocab_size, d_model}, model.lm_head));
  }
  return slots;
}

}  // namespace mambify
