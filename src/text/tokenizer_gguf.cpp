// A tokenizer from GGUF metadata, brought into the form of a tokenizer.json.
#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "text/tokenizer_source.h"
#include "text/utf8.h"

namespace mambify {
namespace {

// A pre-tokenizer that `tokenizer.ggml.pre` can name. A new one is a row here.
struct GgufPreTokenizer {
  std::array<std::string_view, 3> names;  // those that exist, the first in messages
  const char* description;                // as in tokenizer.json
  bool ignore_merges;
  bool add_bos;  // where tokenizer.ggml.add_bos_token is absent
};

constexpr std::array<GgufPreTokenizer, 3> kPreTokenizers = {{
    {{"gpt-2", "default", ""},
     R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})",
     false,
     false},
    {{"smollm", "", ""},
     R"({"type": "Sequence", "pretokenizers": [
         {"type": "Digits", "individual_digits": true},
         {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
          "use_regex": true}]})",
     false,
     false},
    {{"llama-bpe", "llama3", "llama-v3"},
     R"re({"type": "Sequence", "pretokenizers": [
         {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex":
          "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
         {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
          "use_regex": false}]})re",
     true,
     true},
}};

// llama.cpp's llama_token_type.
enum TokenType : int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4 };

constexpr const char* kModelKey = "tokenizer.ggml.model";
constexpr const char* kPreKey = "tokenizer.ggml.pre";
constexpr const char* kTokensKey = "tokenizer.ggml.tokens";
constexpr const char* kTypesKey = "tokenizer.ggml.token_type";
constexpr const char* kMergesKey = "tokenizer.ggml.merges";

const GgufPreTokenizer& pre_tokenizer(const GgufFile& gguf) {
  const auto name = gguf.find<std::string>(kPreKey).value_or("default");
  std::string known;
  for (const GgufPreTokenizer& entry : kPreTokenizers) {
    for (const std::string_view candidate : entry.names) {
      if (candidate.empty()) continue;
      if (candidate == name) return entry;
      (known += known.empty() ? "" : ", ") += candidate;
    }
  }
  throw Error("{}: {} is \"{}\"; supported are {}", gguf.path.string(), kPreKey, name, known);
}

nlohmann::json vocabulary(const GgufFile& gguf, const std::vector<std::string>& tokens) {
  nlohmann::json vocab = nlohmann::json::object();
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!is_valid_utf8(tokens[id])) {
      throw Error("{}: {}[{}] is not valid UTF-8", gguf.path.string(), kTokensKey, id);
    }
    if (!vocab.emplace(tokens[id], id).second) {
      throw Error("{}: {}[{}] is \"{}\", which is also the token {}", gguf.path.string(),
                  kTokensKey, id, tokens[id], vocab[tokens[id]].get<int64_t>());
    }
  }
  return vocab;
}

nlohmann::json merge_list(const GgufFile& gguf) {
  nlohmann::json merges = nlohmann::json::array();
  for (const std::string& merge : gguf.require<std::vector<std::string>>(kMergesKey)) {
    if (!is_valid_utf8(merge)) {
      throw Error("{}: {}[{}] is not valid UTF-8", gguf.path.string(), kMergesKey, merges.size());
    }
    merges.push_back(merge);
  }
  return merges;
}

nlohmann::json added_tokens(const GgufFile& gguf, const std::vector<std::string>& tokens) {
  nlohmann::json added = nlohmann::json::array();
  const auto types = gguf.find<std::vector<int64_t>>(kTypesKey);
  if (!types) return added;
  if (types->size() != tokens.size()) {
    throw Error("{}: {} has {} entries; expected one for each of the {} tokens", gguf.path.string(),
                kTypesKey, types->size(), tokens.size());
  }
  for (size_t id = 0; id < tokens.size(); ++id) {
    const int64_t type = (*types)[id];
    if (type != kUnknown && type != kControl && type != kUserDefined) continue;
    added.push_back({{"id", id},
                     {"content", tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", type != kUserDefined}});
  }
  return added;
}

nlohmann::json byte_level() {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", true}};
}

nlohmann::json post_processor(bool add_bos, const std::string& bos, int64_t bos_id) {
  if (!add_bos) return byte_level();
  const nlohmann::json special = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
  const auto sequence = [](const char* id, int type) -> nlohmann::json {
    return {{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  return {{"type", "TemplateProcessing"},
          {"single", {special, sequence("A", 0)}},
          {"pair", {special, sequence("A", 0), sequence("B", 1)}},
          {"special_tokens", {{bos, {{"id", bos}, {"ids", {bos_id}}, {"tokens", {bos}}}}}}};
}

}  // namespace

TokenizerSource read_tokenizer_gguf(const GgufFile& gguf) {
  const auto model = gguf.require<std::string>(kModelKey);
  if (model != "gpt2") {
    throw Error("{}: {} is \"{}\"; supported is gpt2 (byte-level BPE)", gguf.path.string(),
                kModelKey, model);
  }
  const GgufPreTokenizer& pre = pre_tokenizer(gguf);
  const auto& tokens = gguf.require<std::vector<std::string>>(kTokensKey);

  TokenizerSource source;
  source.origin = gguf.path.string();
  const auto reference = [&](const std::string& name) {
    const std::string key = "tokenizer.ggml." + name + "_token_id";
    TokenReference token{{}, gguf.find<int64_t>(key), source.origin + ": " + key};
    if (token.id && (*token.id < 0 || *token.id >= static_cast<int64_t>(tokens.size()))) {
      throw Error("{} is {}; the vocabulary has {} tokens", token.origin, *token.id, tokens.size());
    }
    if (token.id) token.text = tokens[static_cast<size_t>(*token.id)];
    return token;
  };
  source.bos = reference("bos");
  source.eos = reference("eos");
  for (const char* name : {"eot", "eom"}) {
    if (auto token = reference(name); token.named()) source.stops.push_back(std::move(token));
  }
  const bool add_bos =
      source.bos.named() && gguf.find<bool>("tokenizer.ggml.add_bos_token").value_or(pre.add_bos);
  source.add_bos = add_bos;
  source.chat_template = gguf.find<std::string>("tokenizer.chat_template").value_or("");

  source.document = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", nullptr},
      {"normalizer", nullptr},
      {"pre_tokenizer", nlohmann::json::parse(pre.description)},
      {"post_processor",
       post_processor(add_bos, source.bos.text.value_or(""), source.bos.id.value_or(0))},
      {"decoder", byte_level()},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", pre.ignore_merges}}},
  };
  // Moved in: an initializer list would copy them at each level.
  source.document["added_tokens"] = added_tokens(gguf, tokens);
  source.document["model"]["vocab"] = vocabulary(gguf, tokens);
  source.document["model"]["merges"] = merge_list(gguf);

  nlohmann::json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                           {"add_bos_token", add_bos},
                           {"clean_up_tokenization_spaces", false}};
  nlohmann::json generation = nlohmann::json::object();
  if (source.bos.named()) {
    config["bos_token"] = *source.bos.text;
    generation["bos_token_id"] = *source.bos.id;
  }
  nlohmann::json ends = nlohmann::json::array();
  if (source.eos.named()) {
    config["eos_token"] = *source.eos.text;
    ends.push_back(*source.eos.id);
  }
  for (const TokenReference& stop : source.stops) {
    if (std::find(ends.begin(), ends.end(), *stop.id) == ends.end()) ends.push_back(*stop.id);
  }
  if (!ends.empty()) generation["eos_token_id"] = ends;
  for (const auto& [name, key] : {std::pair("unknown", "unk_token"), {"padding", "pad_token"}}) {
    if (const auto token = reference(name); token.named()) config[key] = *token.text;
  }
  if (!source.chat_template.empty()) config["chat_template"] = source.chat_template;
  source.files["tokenizer_config.json"] = config.dump(2) + "\n";
  source.files["generation_config.json"] = generation.dump(2) + "\n";
  source.files["tokenizer.json"] = source.document.dump();
  return source;
}

}  // namespace mambify
