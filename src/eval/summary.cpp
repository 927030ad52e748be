#include "eval/summary.h"

#include <initializer_list>
#include <string_view>

namespace mambify {
namespace {

bool contains_any(std::string_view name, std::initializer_list<std::string_view> parts) {
  for (const std::string_view part : parts) {
    if (name.find(part) != std::string_view::npos) return true;
  }
  return false;
}

int64_t& part_of(ParameterCounts& counts, std::string_view name) {
  // Mixers first: a Mamba mixer has a norm of its own. GGUF calls attention's tensors attn_q, ...
  // and the norm before it attn_norm.
  if (contains_any(name, {".mamba.", ".mixer."})) return counts.mamba;
  if (contains_any(name, {"norm"})) return counts.norms;
  if (contains_any(name, {".self_attn.", ".attn_"})) return counts.attention;
  if (contains_any(name, {".mlp.", ".ffn_"})) return counts.mlp;
  if (contains_any(name, {"embed_tokens", "embeddings", "token_embd"})) return counts.embedding;
  if (contains_any(name, {"lm_head"}) || name == "output.weight") return counts.output;
  return counts.other;
}

}  // namespace

ParameterCounts count_parameters(const TensorMap& tensors) {
  ParameterCounts counts;
  for (const auto& [name, view] : tensors) part_of(counts, name) += view.elements();
  return counts;
}

std::map<std::string, int64_t> count_by_dtype(const TensorMap& tensors) {
  std::map<std::string, int64_t> counts;
  for (const auto& [name, view] : tensors) counts[dtype_name(view.dtype)] += view.elements();
  return counts;
}

SequenceMemory sequence_memory(const ModelConfig& config, int64_t context,
                               int64_t bytes_per_value) {
  constexpr int64_t kStateBytes = sizeof(float);
  const AttentionConfig& attention = config.attention;
  const Mamba1Config& mamba1 = config.mamba1;
  const Mamba2Config& mamba2 = config.mamba2;
  SequenceMemory memory;
  memory.kv_cache = config.count(MixerKind::attention) * 2 * attention.n_kv_heads *
                    attention.head_dim * context * bytes_per_value;
  memory.recurrent_state =
      kStateBytes *
      (config.count(MixerKind::mamba1) * mamba1.d_inner * (mamba1.d_state + mamba1.d_conv - 1) +
       config.count(MixerKind::mamba2) *
           (mamba2.d_inner() * mamba2.d_state + mamba2.conv_channels() * (mamba2.d_conv - 1)));
  return memory;
}

}  // namespace mambify
