// mambify inspect: what a checkpoint is.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "checkpoint_options.h"
#include "core/error.h"
#include "eval/summary.h"
#include "model/load.h"
#include "text/chat_template.h"
#include "verbs.h"

namespace mambify {
namespace {

struct InspectOptions {
  std::string model;
  int64_t context = 0;  // 0: the model's own limit, at most 8192
  bool json = false;
};

using nlohmann::json;

const char* layout_name(Layout layout) {
  switch (layout) {
    case Layout::llama:
      return "llama";
    case Layout::mamba1:
      return "mamba";
    case Layout::mamba2:
      return "mamba2";
  }
  return "";
}

const char* template_name(ChatTemplate::Kind kind) {
  switch (kind) {
    case ChatTemplate::Kind::chatml:
      return "chatml";
    case ChatTemplate::Kind::smollm2:
      return "smollm2";
    case ChatTemplate::Kind::llama3:
      return "llama3";
  }
  return "";
}

json describe_tokenizer(const std::string& path) {
  if (!has_tokenizer(path)) return nullptr;
  const Tokenizer tokenizer = Tokenizer::load(path);
  json result = {{"kind", "byte-level BPE"}, {"vocab_size", tokenizer.vocab_size()}};
  const auto token = [&](const char* key, std::optional<TokenId> id) {
    if (id) result[key] = {{"id", *id}, {"text", tokenizer.token_bytes(*id)}};
  };
  token("bos", tokenizer.bos_id());
  token("eos", tokenizer.eos_id());
  result["chat_template"] = nullptr;
  if (tokenizer.chat_template_source().empty()) return result;
  try {
    result["chat_template"] = template_name(ChatTemplate::recognise(tokenizer).kind());
  } catch (const Error&) {
    result["chat_template"] = "unknown";
  }
  return result;
}

json describe_mixers(const ModelConfig& config) {
  json mixers = json::object();
  if (config.count(MixerKind::attention) > 0) {
    const AttentionConfig& a = config.attention;
    mixers["attention"] = {{"layers", config.count(MixerKind::attention)},
                           {"heads", a.n_heads},
                           {"kv_heads", a.n_kv_heads},
                           {"head_dim", a.head_dim},
                           {"rope_theta", a.rope.theta},
                           {"rope_scaling", a.rope.llama3 ? json("llama3") : json(nullptr)}};
  }
  if (config.count(MixerKind::mamba1) > 0) {
    const Mamba1Config& m = config.mamba1;
    mixers["mamba1"] = {{"layers", config.count(MixerKind::mamba1)},
                        {"d_inner", m.d_inner},
                        {"d_xb", m.d_xb},
                        {"d_state", m.d_state},
                        {"dt_rank", m.dt_rank},
                        {"d_conv", m.d_conv}};
  }
  if (config.count(MixerKind::mamba2) > 0) {
    const Mamba2Config& m = config.mamba2;
    mixers["mamba2"] = {{"layers", config.count(MixerKind::mamba2)},
                        {"heads", m.n_heads},
                        {"head_dim", m.head_dim},
                        {"d_state", m.d_state},
                        {"x_groups", m.x_groups},
                        {"b_groups", m.b_groups},
                        {"c_groups", m.c_groups},
                        {"d_conv", m.d_conv},
                        {"gate", m.gate},
                        {"norm", m.norm},
                        {"conv_activation", m.conv_activation},
                        {"rotary", m.rotary}};
  }
  return mixers;
}

json describe_memory(const ModelConfig& config, int64_t parameters, int64_t context) {
  json memory = {{"context", context}};
  for (const auto& [name, bytes] : {std::pair<const char*, int64_t>{"fp32", 4}, {"bf16", 2}}) {
    const SequenceMemory sequence = sequence_memory(config, context, bytes);
    const int64_t weights = parameters * bytes;
    memory[name] = {{"weights", weights},
                    {"kv_cache", sequence.kv_cache},
                    {"recurrent_state", sequence.recurrent_state},
                    {"total", weights + sequence.kv_cache + sequence.recurrent_state}};
  }
  return memory;
}

json describe(const InspectOptions& options) {
  const Checkpoint checkpoint = open_checkpoint(options.model);
  const ModelConfig config = read_config(checkpoint);
  const ParameterCounts counts = count_parameters(checkpoint.tensors);
  int64_t bytes = 0;
  for (const auto& [name, view] : checkpoint.tensors) {
    bytes += static_cast<int64_t>(view.bytes.size());
  }
  json layers = json::array();
  for (const MixerKind kind : config.layers) layers.push_back(mixer_name(kind));
  constexpr int64_t kDefaultContext = 8192;
  int64_t context = options.context;
  if (context == 0) {
    context = config.max_positions > 0 ? std::min(config.max_positions, kDefaultContext)
                                       : kDefaultContext;
  }
  const bool hybrid =
      config.layout == Layout::llama && config.count(MixerKind::attention) < config.n_layer();
  return {{"path", options.model},
          {"format", checkpoint.gguf ? "gguf" : "safetensors"},
          {"architecture", hybrid ? "llama hybrid" : layout_name(config.layout)},
          {"layers", layers},
          {"d_model", config.d_model},
          {"intermediate_size", config.intermediate_size},
          {"vocab_size", config.vocab_size},
          {"max_positions", config.max_positions},
          {"tied_embeddings", config.tie_embeddings},
          {"mixers", describe_mixers(config)},
          {"parameters",
           {{"total", counts.total()},
            {"embedding", counts.embedding},
            {"attention", counts.attention},
            {"mamba", counts.mamba},
            {"mlp", counts.mlp},
            {"norms", counts.norms},
            {"output", counts.output},
            {"other", counts.other}}},
          {"stored", {{"bytes", bytes}, {"dtypes", count_by_dtype(checkpoint.tensors)}}},
          {"tokenizer", describe_tokenizer(options.model)},
          {"memory", describe_memory(config, counts.total(), context)}};
}

std::string megabytes(const json& bytes) {
  return fmt::format("{:.1f} MB", static_cast<double>(bytes.get<int64_t>()) / 1e6);
}

std::string millions(const json& count) {
  const auto value = count.get<int64_t>();
  return value < 100'000 ? fmt::format("{}", value)
                         : fmt::format("{:.2f} M", static_cast<double>(value) / 1e6);
}

// "0-2 mamba2, 3 attention, ...": runs of equal layers.
std::string layer_runs(const json& layers) {
  std::string text;
  for (size_t first = 0; first < layers.size();) {
    size_t last = first;
    while (last + 1 < layers.size() && layers[last + 1] == layers[first]) ++last;
    if (!text.empty()) text += ", ";
    text += last == first ? fmt::format("{}", first) : fmt::format("{}-{}", first, last);
    text += " " + layers[first].get<std::string>();
    first = last + 1;
  }
  return text;
}

void print_line(const char* label, const std::string& text) {
  fmt::print("{:<14}{}\n", label, text);
}

std::string parts_text(const json& parts) {
  std::string text;
  for (const auto& [name, count] : parts.items()) {
    if (name == "total" || count == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, millions(count));
  }
  return text;
}

std::string fields_text(const json& fields) {
  std::string text;
  for (const auto& [name, value] : fields.items()) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, value.dump());
  }
  return text;
}

std::string tokenizer_text(const json& tokenizer) {
  if (tokenizer.is_null()) return "none beside the weights";
  std::string text = fmt::format("{}, {} tokens", tokenizer["kind"].get<std::string>(),
                                 tokenizer["vocab_size"].get<int64_t>());
  for (const char* key : {"bos", "eos"}) {
    if (!tokenizer.contains(key)) continue;
    text += fmt::format(", {} {} ({})", key, tokenizer[key]["text"].get<std::string>(),
                        tokenizer[key]["id"].get<int64_t>());
  }
  const json& chat = tokenizer["chat_template"];
  return text + ", chat template " + (chat.is_null() ? "none" : chat.get<std::string>());
}

void print_text(const json& model) {
  print_line("model", model["path"]);
  print_line("architecture", fmt::format("{}, {}", model["architecture"].get<std::string>(),
                                         model["format"].get<std::string>()));
  print_line("layers", fmt::format("{}: {}", model["layers"].size(), layer_runs(model["layers"])));
  print_line("sizes",
             fmt::format("width {}, MLP {}, vocabulary {}{}, positions {}", model["d_model"].dump(),
                         model["intermediate_size"].dump(), model["vocab_size"].dump(),
                         model["tied_embeddings"].get<bool>() ? " (tied)" : "",
                         model["max_positions"].dump()));
  for (const auto& [kind, fields] : model["mixers"].items()) {
    print_line(kind.c_str(), fields_text(fields));
  }
  print_line("parameters", fmt::format("{}: {}", millions(model["parameters"]["total"]),
                                       parts_text(model["parameters"])));
  print_line("stored", fmt::format("{}: {}", megabytes(model["stored"]["bytes"]),
                                   parts_text(model["stored"]["dtypes"])));
  print_line("tokenizer", tokenizer_text(model["tokenizer"]));
  const json& memory = model["memory"];
  fmt::print("memory at a context of {} tokens\n", memory["context"].get<int64_t>());
  for (const char* dtype : {"fp32", "bf16"}) {
    const json& use = memory[dtype];
    fmt::print("  {:<12}{}: weights {}, key/value cache {}, recurrent state {}\n", dtype,
               megabytes(use["total"]), megabytes(use["weights"]), megabytes(use["kv_cache"]),
               megabytes(use["recurrent_state"]));
  }
}

void run_inspect(const InspectOptions& options) {
  const json model = describe(options);
  if (options.json) {
    print_json(model);
  } else {
    print_text(model);
  }
}

}  // namespace

void add_inspect(CLI::App& app) {
  CLI::App* verb =
      app.add_subcommand("inspect", "What a checkpoint is, without reading its weights");
  auto options = std::make_shared<InspectOptions>();
  add_model_option(*verb, "model", options->model, "the checkpoint")->required();
  verb->add_option("--context", options->context,
                   "context length for the memory estimate (default: the model's, at most 8192)")
      ->check(CLI::PositiveNumber);
  verb->add_flag("--json", options->json, "print exactly one JSON object on stdout");
  verb->callback([options] { run_inspect(*options); });
}

}  // namespace mambify
