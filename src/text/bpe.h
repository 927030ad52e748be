// Byte-pair encoding of one word: https://arxiv.org/abs/1508.07909, in the order of merges that
// Hugging Face `tokenizers` follows.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/tokenizer.h"

namespace mambify {

// Lookup by string_view in a map of strings.
struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using TokenIndex = std::unordered_map<std::string, TokenId, StringHash, std::equal_to<>>;

class BytePairEncoder {
 public:
  // A token and how many bytes of the word it covers.
  struct Piece {
    TokenId id;
    uint32_t bytes;
  };

  // The `model` entry of a tokenizer.json. Throws Error naming a merge whose parts or result the
  // vocabulary lacks, or an option of BPE that byte-level vocabularies do not use.
  BytePairEncoder(const nlohmann::json& model, const std::string& origin);

  // Appends the word's tokens. A byte that the vocabulary lacks becomes the unknown token, or
  // nothing where there is none (Hugging Face does the same); the piece before covers it.
  void encode(std::string_view word, std::vector<Piece>& pieces) const;

  // The vocabulary as the file writes it, in the byte alphabet.
  const TokenIndex& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    int32_t rank;
    TokenId result;
  };
  struct Symbol;
  struct Candidate;

  static uint64_t pair_key(TokenId left, TokenId right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  void read_vocabulary(const nlohmann::json& vocab, const std::string& origin);
  void read_merges(const nlohmann::json& merges, const std::string& origin);
  std::vector<Symbol> initial_symbols(std::string_view word) const;
  void merge(std::vector<Symbol>& symbols) const;

  TokenIndex vocabulary_;
  TokenIndex of_bytes_;  // the same, by the bytes it stands for
  std::array<TokenId, 256> of_byte_;
  std::unordered_map<uint64_t, Merge> merges_;
  std::optional<TokenId> unknown_;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
};

}  // namespace mambify
