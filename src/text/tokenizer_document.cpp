#include "text/tokenizer_document.h"

#include <algorithm>
#include <limits>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "io/json_reader.h"

namespace mambify {
namespace {

using Json = nlohmann::json;

// The entries of `key`, which holds a list or is absent.
const Json& list_entry(const Json& object, const char* key, const std::string& origin) {
  static const Json empty = Json::array();
  const Json& list = optional_entry(object, key, origin);
  if (list.is_null()) return empty;
  if (!list.is_array()) throw Error("{}: {} is {}; expected a list", origin, key, list.type_name());
  return list;
}

// A description and those inside it, when it is a Sequence: normalizers, processors, decoders.
std::vector<const Json*> flattened(const Json& description, const char* list_key,
                                   const std::string& origin) {
  if (description.is_null()) return {};
  if (JsonReader(description, origin).require<std::string>("type") != "Sequence") {
    return {&description};
  }
  std::vector<const Json*> all;
  for (const Json& entry : list_entry(description, list_key, origin)) {
    for (const Json* inner : flattened(entry, list_key, origin)) all.push_back(inner);
  }
  return all;
}

std::string type_of(const Json& description, const std::string& origin) {
  return JsonReader(description, origin).require<std::string>("type");
}

std::vector<TokenId> template_prefix(const Json& description, const std::string& origin) {
  std::vector<TokenId> prefix;
  const JsonReader reader(description, origin);
  for (const Json& entry : list_entry(description, "single", origin)) {
    const JsonReader part(entry, origin + ": single");
    if (!part.has("SpecialToken")) break;
    const auto name = part.object("SpecialToken").require<std::string>("id");
    for (const int64_t id :
         reader.object("special_tokens").object(name).require<std::vector<int64_t>>("ids")) {
      if (id < 0 || id > std::numeric_limits<TokenId>::max()) {
        throw Error("{}: special token \"{}\" has the id {}", origin, name, id);
      }
      prefix.push_back(static_cast<TokenId>(id));
    }
  }
  return prefix;
}

}  // namespace

const Json& optional_entry(const Json& document, const char* key, const std::string& origin) {
  static const Json null;
  if (!document.is_object()) {
    throw Error("{}: found {} where an object is expected", origin, document.type_name());
  }
  const auto found = document.find(key);
  return found == document.end() ? null : *found;
}

const Json& required_entry(const Json& document, const char* key, const std::string& origin) {
  const Json& entry = optional_entry(document, key, origin);
  if (entry.is_null()) throw Error("{}: {} is missing", origin, key);
  return entry;
}

std::vector<AddedToken> read_added_tokens(const Json& document, const TokenIndex& vocabulary,
                                          const std::string& origin) {
  const Json& list = list_entry(document, "added_tokens", origin);
  // The same bound on ids as the vocabulary has, for the same reason.
  const auto limit = static_cast<int64_t>(2 * (vocabulary.size() + list.size()) + 1024);
  std::unordered_map<TokenId, std::string> content_of;
  for (const auto& [piece, id] : vocabulary) content_of.emplace(id, piece);
  TokenIndex added_ids;

  std::vector<AddedToken> tokens;
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonReader reader(list[i], fmt::format("{}: added_tokens[{}]", origin, i));
    AddedToken token;
    token.content = reader.require<std::string>("content");
    token.id = static_cast<TokenId>(reader.require_between("id", 0, limit - 1));
    token.special = reader.get("special", false);
    token.single_word = reader.get("single_word", false);
    token.lstrip = reader.get("lstrip", false);
    token.rstrip = reader.get("rstrip", false);
    token.normalized = reader.get("normalized", !token.special);
    const auto known = vocabulary.find(token.content);
    const auto [same, is_new] = added_ids.emplace(token.content, token.id);
    const TokenId id = known != vocabulary.end() ? known->second : same->second;
    if (id != token.id) {
      throw Error("{}: \"{}\" has the id {} here and {} elsewhere", reader.origin(), token.content,
                  token.id, id);
    }
    const auto taken = content_of.emplace(token.id, token.content).first;
    if (taken->second != token.content) {
      throw Error("{}: the id {} of \"{}\" is also that of \"{}\"", reader.origin(), token.id,
                  token.content, taken->second);
    }
    if (is_new) tokens.push_back(std::move(token));
  }
  return tokens;
}

std::vector<TokenId> read_prompt_prefix(const Json& document, const std::string& origin) {
  const std::string where = origin + ": post_processor";
  std::vector<TokenId> prefix;
  for (const Json* processor :
       flattened(optional_entry(document, "post_processor", origin), "processors", where)) {
    const std::string type = type_of(*processor, where);
    if (type == "TemplateProcessing") {
      prefix = template_prefix(*processor, where);
    } else if (type != "ByteLevel") {
      throw Error("{}: found {}; supported are TemplateProcessing and ByteLevel", where, type);
    }
  }
  return prefix;
}

void check_normalizer_and_decoder(const Json& document, const std::string& origin) {
  const std::string normalizer = origin + ": normalizer", decoder = origin + ": decoder";
  for (const Json* entry :
       flattened(optional_entry(document, "normalizer", origin), "normalizers", normalizer)) {
    throw Error("{}: found {}; supported is none", normalizer, type_of(*entry, normalizer));
  }
  const auto decoders = flattened(optional_entry(document, "decoder", origin), "decoders", decoder);
  if (decoders.size() != 1 || type_of(*decoders.front(), decoder) != "ByteLevel") {
    throw Error("{}: found {}; supported is ByteLevel", decoder,
                decoders.empty() ? "none" : type_of(*decoders.front(), decoder));
  }
}

}  // namespace mambify
