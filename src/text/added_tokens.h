// Tokens that are found in the text as they are, before anything else looks at it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/tokenizer.h"
#include "text/unicode_regex.h"

namespace mambify {

// An entry of `added_tokens` in a tokenizer.json.
struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool special = false;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // takes the white space behind it along
  bool normalized = true;    // looked for after, not before, those that are not
};

// Finds a set of added tokens: at the leftmost place, the longest that fits.
class AddedTokenFinder {
 public:
  // Called for each part of the text in order, with the token's id or, for text between tokens,
  // none. Parts do not overlap; text is never empty.
  using Sink = std::function<void(std::optional<TokenId>, ByteRange)>;

  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  // text must be valid UTF-8.
  void split(std::string_view text, const Sink& sink) const;

 private:
  struct Found {
    const AddedToken* token;
    ByteRange range;
  };
  // The next match at or after `start`, of any kind.
  std::optional<Found> find(std::string_view text, size_t start) const;

  std::vector<AddedToken> tokens_;
  // A trie: (node, byte) to node; node 0 is the root.
  std::unordered_map<uint64_t, uint32_t> children_;
  std::vector<int32_t> token_at_;  // by node: index into tokens_, -1 for none
  std::vector<bool> first_byte_;
};

}  // namespace mambify
