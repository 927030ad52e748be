#include "core/error.h"
#include "model/layouts/layout.h"

namespace mambify {
namespace {

std::string architecture_of(const Checkpoint& checkpoint) {
  if (checkpoint.gguf) return checkpoint.gguf->require<std::string>("general.architecture");
  return JsonReader(checkpoint.config, (checkpoint.path / "config.json").string())
      .get<std::string>("model_type", "");
}

// Old Llama exports carry their rotary frequencies; a tied output matrix is often stored twice.
bool is_derived_in_llama(const std::string& name) {
  return name.ends_with(".rotary_emb.inv_freq") || name == "lm_head.weight";
}
bool is_derived_in_gguf(const std::string& name) {
  return name == "rope_freqs.weight" || name == "output.weight";
}
bool is_tied_head(const std::string& name) { return name == "lm_head.weight"; }

template <const char* kType>
bool is_folder_of(const Checkpoint& checkpoint) {
  return !checkpoint.gguf && architecture_of(checkpoint) == kType;
}

constexpr char kLlama[] = "llama", kMamba[] = "mamba", kMamba2[] = "mamba2";

bool is_gguf_llama(const Checkpoint& checkpoint) {
  return checkpoint.gguf && architecture_of(checkpoint) == kLlama;
}

// A published hybrid names its teacher's type in config.json, whatever Llama variant that was.
bool is_llama_or_hybrid(const Checkpoint& checkpoint) {
  return is_folder_of<kLlama>(checkpoint) || (!checkpoint.gguf && checkpoint.mamba_config);
}

const LayoutFormat kFormats[] = {
    {"llama", is_llama_or_hybrid, read_llama_config, llama_weights, is_derived_in_llama},
    {"llama (GGUF)", is_gguf_llama, read_gguf_llama_config, gguf_llama_weights, is_derived_in_gguf},
    {"mamba", is_folder_of<kMamba>, read_mamba1_config, mamba1_weights, is_tied_head},
    {"mamba2", is_folder_of<kMamba2>, read_mamba2_config, mamba2_weights, is_tied_head},
};

}  // namespace

WeightSlot weight(std::string name, std::vector<int64_t> shape, at::Tensor& tensor) {
  const int64_t rows = shape.front();
  return {std::move(name), std::move(shape), {{&tensor, rows}}};
}

std::optional<int64_t> first_token_id(const JsonReader& config, const std::string& key) {
  if (!config.has(key)) return std::nullopt;
  if (!config.json().at(key).is_array()) return config.require<int64_t>(key);
  const auto ids = config.require<std::vector<int64_t>>(key);
  return ids.empty() ? std::nullopt : std::optional(ids.front());
}

const LayoutFormat& format_of(const Checkpoint& checkpoint) {
  for (const LayoutFormat& format : kFormats) {
    if (format.matches(checkpoint)) return format;
  }
  std::string supported;
  for (const LayoutFormat& format : kFormats) {
    supported += (supported.empty() ? "" : ", ") + std::string(format.name);
  }
  throw Error("{}: unknown architecture \"{}\"; supported: {}", checkpoint.path.string(),
              architecture_of(checkpoint), supported);
}

}  // namespace mambify
