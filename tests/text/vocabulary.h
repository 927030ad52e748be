// Small tokenizers for tests: the 256 bytes, then what a test adds.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/byte_level.h"
#include "text/tokenizer.h"

namespace mambify::testing {

// A tokenizer.json whose vocabulary is every byte (its id is the byte), then the results of the
// merges, in order from 256 on.
inline nlohmann::json byte_document(
    const std::vector<std::pair<std::string, std::string>>& merges = {}) {
  nlohmann::json vocab = nlohmann::json::object(), list = nlohmann::json::array();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[to_byte_level(std::string(1, static_cast<char>(byte)))] = byte;
  }
  for (const auto& [left, right] : merges) {
    const std::string a = to_byte_level(left), b = to_byte_level(right);
    vocab.emplace(a + b, vocab.size());
    list.push_back({a, b});
  }
  nlohmann::json document;
  document["added_tokens"] = nlohmann::json::array();
  document["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  document["decoder"] = {{"type", "ByteLevel"}};
  document["model"] = {{"type", "BPE"}};
  document["model"]["vocab"] = std::move(vocab);
  document["model"]["merges"] = std::move(list);
  return document;
}

// An entry of added_tokens, without its flags.
inline nlohmann::json added_token(std::string_view content, int64_t id) {
  return {{"content", content}, {"id", id}, {"special", true}};
}

inline Tokenizer from_document(const nlohmann::json& document) {
  return Tokenizer::from_json(document.dump(), "test.json");
}

// What the tokens of a text stand for, one string each.
inline std::vector<std::string> pieces(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::string> result;
  for (const TokenId id : tokenizer.encode(text)) result.push_back(tokenizer.token_bytes(id));
  return result;
}

}  // namespace mambify::testing
