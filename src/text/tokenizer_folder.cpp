// A tokenizer from a folder in Hugging Face layout.
#include <utility>

#include "core/error.h"
#include "io/json_reader.h"
#include "text/tokenizer_source.h"

namespace mambify {
namespace {

constexpr const char* kTokenizer = "tokenizer.json";
constexpr const char* kTokenizerConfig = "tokenizer_config.json";
constexpr const char* kGenerationConfig = "generation_config.json";
constexpr const char* kChatTemplate = "chat_template.jinja";

// A settings file of the folder, written by Python; it may be absent, then an empty object.
nlohmann::json read_optional(const fs::path& path) {
  return fs::exists(path) ? read_json(path) : nlohmann::json::object();
}

// "<s>" or {"content": "<s>", ...}.
TokenReference token_setting(const JsonReader& config, const std::string& key) {
  TokenReference token;
  token.origin = config.origin() + ": " + key;
  if (!config.has(key)) return token;
  token.text = config.json()[key].is_object() ? config.object(key).require<std::string>("content")
                                              : config.require<std::string>(key);
  return token;
}

// 2 or [2, 3].
std::vector<TokenReference> id_setting(const JsonReader& config, const std::string& key) {
  std::vector<TokenReference> tokens;
  if (!config.has(key)) return tokens;
  const auto ids = config.json()[key].is_array()
                       ? config.require<std::vector<int64_t>>(key)
                       : std::vector<int64_t>{config.require<int64_t>(key)};
  for (const int64_t id : ids) tokens.push_back({{}, id, config.origin() + ": " + key});
  return tokens;
}

// A string, or a list of {"name", "template"} of which "default" is for plain conversations.
std::string template_setting(const JsonReader& config) {
  constexpr const char* kKey = "chat_template";
  if (!config.has(kKey)) return "";
  if (!config.json()[kKey].is_array()) return config.require<std::string>(kKey);
  for (const nlohmann::json& entry : config.json()[kKey]) {
    const JsonReader named(entry, config.origin() + ": chat_template");
    if (named.require<std::string>("name") == "default") {
      return named.require<std::string>("template");
    }
  }
  return "";
}

}  // namespace

TokenizerSource read_tokenizer_folder(const fs::path& folder) {
  const fs::path path = folder / kTokenizer;
  if (!fs::exists(path)) {
    throw Error(
        "{}: there is no {}; supported are byte-level BPE tokenizers in that format or in "
        "a GGUF file",
        folder.string(), kTokenizer);
  }
  TokenizerSource source;
  source.origin = path.string();
  source.document = read_json(path);
  for (const char* name : {kTokenizer, kTokenizerConfig, kGenerationConfig, kChatTemplate}) {
    if (fs::exists(folder / name)) source.files[name] = read_text_file(folder / name);
  }

  const nlohmann::json settings_json = read_optional(folder / kTokenizerConfig);
  const nlohmann::json generation_json = read_optional(folder / kGenerationConfig);
  const nlohmann::json model_json = read_optional(folder / "config.json");
  const JsonReader settings(settings_json, (folder / kTokenizerConfig).string());
  const JsonReader generation(generation_json, (folder / kGenerationConfig).string());
  const JsonReader model(model_json, (folder / "config.json").string());

  source.add_bos = settings.find<bool>("add_bos_token");
  source.chat_template = source.files.contains(kChatTemplate) ? source.files[kChatTemplate]
                                                              : template_setting(settings);
  source.bos = token_setting(settings, "bos_token");
  source.eos = token_setting(settings, "eos_token");
  const auto ids = [&](const std::string& key) {
    auto found = id_setting(generation, key);
    return found.empty() ? id_setting(model, key) : found;
  };
  source.stops = ids("eos_token_id");
  // A null in tokenizer_config.json says that there is none: the model's id is padding then.
  if (!settings.json().contains("bos_token")) {
    if (const auto bos = ids("bos_token_id"); !bos.empty()) source.bos = bos.front();
  }
  if (!settings.json().contains("eos_token") && !source.stops.empty()) {
    source.eos = source.stops.front();
  }
  return source;
}

}  // namespace mambify
