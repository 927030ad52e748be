// Llama in GGUF: the same tensors under llama.cpp's names, q and k in interleaved rotary order.
#include <ATen/ops/arange.h>

#include <cmath>
#include <map>

#include "core/error.h"
#include "model/layouts/layout.h"
#include "ops/rotary.h"

namespace mambify {
namespace {

// llama.cpp stores Llama 3's stretching as one factor per frequency, without the parameters that
// made it. The published models use two sets, so the factors are matched against those.
std::optional<Llama3Scaling> recognise_scaling(const Checkpoint& checkpoint, int64_t head_dim,
                                               double theta) {
  const auto found = checkpoint.tensors.find("rope_freqs.weight");
  if (found == checkpoint.tensors.end()) return std::nullopt;
  const TensorView& view = found->second;
  if (view.elements() != head_dim / 2) {
    throw Error("{}: rope_freqs.weight has {} factors, expected {} (half the head width)",
                checkpoint.path.string(), view.elements(), head_dim / 2);
  }
  std::vector<float> factors(head_dim / 2);
  dequantize(view, factors.data());
  for (const double factor : {8.0, 32.0}) {
    const Llama3Scaling candidate{.factor = factor};
    const at::Tensor one = at::arange(1, 2);
    // At position 1 the angle is the frequency itself; atan2 gives it back for angles up to pi.
    const RotaryTable plain = rotary_table({theta, std::nullopt}, head_dim, one);
    const RotaryTable scaled = rotary_table({theta, candidate}, head_dim, one);
    const at::Tensor ratio = at::atan2(plain.sin, plain.cos) / at::atan2(scaled.sin, scaled.cos);
    const at::Tensor file = at::from_blob(factors.data(), {1, head_dim / 2});
    if ((ratio / file - 1).abs().max().item<float>() < 1e-2f) return candidate;
  }
  throw Error(
      "{}: rope_freqs.weight holds a frequency scaling other than Llama 3's; convert the "
      "checkpoint from its Hugging Face folder instead",
      checkpoint.path.string());
}

// "model.layers.3.mlp.up_proj.weight" to "blk.3.ffn_up.weight".
std::string gguf_name(const std::string& name) {
  static const std::map<std::string, std::string> kTop = {
      {"model.embed_tokens.weight", "token_embd.weight"},
      {"model.norm.weight", "output_norm.weight"},
      {"lm_head.weight", "output.weight"}};
  static const std::map<std::string, std::string> kInLayer = {
      {"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "ffn_norm"},
      {"self_attn.q_proj", "attn_q"},   {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},   {"self_attn.o_proj", "attn_output"},
      {"mlp.gate_proj", "ffn_gate"},    {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  if (const auto top = kTop.find(name); top != kTop.end()) return top->second;
  const size_t number = std::string("model.layers.").size();
  const size_t part = name.find('.', number) + 1, suffix = name.rfind('.');
  return "blk." + name.substr(number, part - number) +
         kInLayer.at(name.substr(part, suffix - part)) + name.substr(suffix);
}

}  // namespace

ModelConfig read_gguf_llama_config(const Checkpoint& checkpoint) {
  const GgufFile& gguf = *checkpoint.gguf;
  const auto size = [&](const std::string& key, int64_t high) {
    const int64_t value = gguf.require<int64_t>("llama." + key);
    if (value < 1 || value > high) {
      throw Error("{}: llama.{} is {}, expected 1 to {}", gguf.path.string(), key, value, high);
    }
    return value;
  };
  ModelConfig config;
  config.layout = Layout::llama;
  config.d_model = size("embedding_length", kMaxWidth);
  config.intermediate_size = size("feed_forward_length", kMaxWidth);
  config.norm_eps = gguf.require<double>("llama.attention.layer_norm_rms_epsilon");
  config.max_positions = gguf.find<int64_t>("llama.context_length").value_or(0);
  config.layers.assign(size("block_count", kMaxLayers), MixerKind::attention);
  config.tie_embeddings = !checkpoint.tensors.contains("output.weight");
  config.vocab_size = checkpoint.require("token_embd.weight").shape.front();
  config.bos_token_id = gguf.find<int64_t>("tokenizer.ggml.bos_token_id");
  config.eos_token_id = gguf.find<int64_t>("tokenizer.ggml.eos_token_id");

  AttentionConfig& attention = config.attention;
  attention.n_heads = size("attention.head_count", kMaxWidth);
  attention.n_kv_heads =
      gguf.find<int64_t>("llama.attention.head_count_kv").value_or(attention.n_heads);
  attention.head_dim =
      gguf.find<int64_t>("llama.attention.key_length").value_or(config.d_model / attention.n_heads);
  if (attention.n_kv_heads < 1 || attention.n_heads % attention.n_kv_heads != 0) {
    throw Error("{}: llama.attention.head_count {} is not a multiple of head_count_kv {}",
                gguf.path.string(), attention.n_heads, attention.n_kv_heads);
  }
  if (attention.head_dim < 2 || attention.head_dim % 2 != 0 || attention.head_dim > kMaxWidth) {
    throw Error("{}: head width {} is not a positive even number", gguf.path.string(),
                attention.head_dim);
  }
  const int64_t rotated =
      gguf.find<int64_t>("llama.rope.dimension_count").value_or(attention.head_dim);
  if (rotated != attention.head_dim) {
    throw Error(
        "{}: llama.rope.dimension_count {} differs from the head width {}; partial rotary "
        "embedding is not supported",
        gguf.path.string(), rotated, attention.head_dim);
  }
  attention.rope.theta = gguf.find<double>("llama.rope.freq_base").value_or(10000.0);
  attention.rope.llama3 = recognise_scaling(checkpoint, attention.head_dim, attention.rope.theta);
  return config;
}

std::vector<WeightSlot> gguf_llama_weights(Model& model) {
  std::vector<WeightSlot> slots = llama_weights(model);
  for (WeightSlot& slot : slots) {
    if (slot.name.ends_with("q_proj.weight")) {
      slot.interleaved_heads = model.config.attention.n_heads;
    } else if (slot.name.ends_with("k_proj.weight")) {
      slot.interleaved_heads = model.config.attention.n_kv_heads;
    }
    slot.name = gguf_name(slot.name);
  }
  return slots;
}

}  // namespace mambify
