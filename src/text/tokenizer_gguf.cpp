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
constexpr const char* kAddBosKey = "tokenizer.ggml.add_bos_token";
constexpr const char* kChatTemplateKey = "tokenizer.chat_template";

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

// Puts a token in front of the text, when there is one to put.
nlohmann::json post_processor(const TokenReference* bos) {
  if (bos == nullptr) return byte_level();
  const std::string& text = *bos->text;
  const nlohmann::json special = {{"SpecialToken", {{"id", text}, {"type_id", 0}}}};
  const auto sequence = [](const char* id, int type) -> nlohmann::json {
    return {{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  return {{"type", "TemplateProcessing"},
          {"single", {special, sequence("A", 0)}},
          {"pair", {special, sequence("A", 0), sequence("B", 1)}},
          {"special_tokens", {{text, {{"id", text}, {"ids", {*bos->id}}, {"tokens", {text}}}}}}};
}

nlohmann::json tokenizer_document(const GgufFile& gguf, const GgufPreTokenizer& pre,
                                  const std::vector<std::string>& tokens,
                                  const TokenReference* added_bos) {
  nlohmann::json document = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"normalizer", nullptr},
      {"pre_tokenizer", nlohmann::json::parse(pre.description)},
      {"post_processor", post_processor(added_bos)},
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
  document["added_tokens"] = added_tokens(gguf, tokens);
  document["model"]["vocab"] = vocabulary(gguf, tokens);
  document["model"]["merges"] = merge_list(gguf);
  return document;
}

TokenReference token_reference(const GgufFile& gguf, const std::vector<std::string>& tokens,
                               const std::string& name) {
  const std::string key = "tokenizer.ggml." + name + "_token_id";
  TokenReference token{{}, gguf.find<int64_t>(key), gguf.path.string() + ": " + key};
  if (!token.id) return token;
  if (*token.id < 0 || *token.id >= static_cast<int64_t>(tokens.size())) {
    throw Error("{} is {}; the vocabulary has {} tokens", token.origin, *token.id, tokens.size());
  }
  token.text = tokens[static_cast<size_t>(*token.id)];
  return token;
}

nlohmann::json tokenizer_config(const TokenizerSource& source, const TokenReference& unknown,
                                const TokenReference& padding) {
  nlohmann::json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                           {"add_bos_token", *source.add_bos},
                           {"clean_up_tokenization_spaces", false}};
  if (source.bos.text) config["bos_token"] = *source.bos.text;
  if (source.eos.text) config["eos_token"] = *source.eos.text;
  if (unknown.text) config["unk_token"] = *unknown.text;
  if (padding.text) config["pad_token"] = *padding.text;
  if (!source.chat_template.empty()) config["chat_template"] = source.chat_template;
  return config;
}

nlohmann::json generation_config(const TokenizerSource& source) {
  nlohmann::json config = nlohmann::json::object(), ends = nlohmann::json::array();
  if (source.bos.id) config["bos_token_id"] = *source.bos.id;
  if (source.eos.id) ends.push_back(*source.eos.id);
  for (const TokenReference& stop : source.stops) {
    if (std::find(ends.begin(), ends.end(), *stop.id) == ends.end()) ends.push_back(*stop.id);
  }
  if (!ends.empty()) config["eos_token_id"] = std::move(ends);
  return config;
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
  const auto reference = [&](const char* name) { return token_reference(gguf, tokens, name); };

  TokenizerSource source;
  source.origin = gguf.path.string();
  source.bos = reference("bos");
  source.eos = reference("eos");
  for (const char* name : {"eot", "eom"}) {
    if (auto token = reference(name); token.named()) source.stops.push_back(std::move(token));
  }
  source.add_bos = source.bos.named() && gguf.find<bool>(kAddBosKey).value_or(pre.add_bos);
  source.chat_template = gguf.find<std::string>(kChatTemplateKey).value_or("");
  if (!is_valid_utf8(source.chat_template)) {
    throw Error("{}: {} is not valid UTF-8", source.origin, kChatTemplateKey);
  }
  source.document = tokenizer_document(gguf, pre, tokens, *source.add_bos ? &source.bos : nullptr);
  source.files = {
      {"tokenizer.json", source.document.dump()},
      {"tokenizer_config.json",
       tokenizer_config(source, reference("unknown"), reference("padding")).dump(2) + "\n"},
      {"generation_config.json", generation_config(source).dump(2) + "\n"},
  };
  return source;
}

}  // namespace mambify
