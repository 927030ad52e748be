#include "text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "text/utf8.h"

namespace mambify {
namespace {

uint64_t edge(uint32_t node, char byte) {
  return static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
}

// Length of the white space at the front.
size_t leading_space(std::string_view text) {
  size_t length = 0;
  while (length < text.size()) {
    const Utf8Char next = next_utf8(text.substr(length));
    if (!is_unicode_space(next.code)) break;
    length += next.length;
  }
  return length;
}

// Where the last character begins. text must not be empty.
size_t last_character(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
  return begin;
}

// Length of the text without the white space at its end.
size_t length_without_trailing_space(std::string_view text) {
  while (!text.empty()) {
    const size_t begin = last_character(text);
    if (!is_unicode_space(next_utf8(text.substr(begin)).code)) break;
    text = text.substr(0, begin);
  }
  return text.size();
}

// \w of Unicode's regular expressions (UTS 18, annex C).
bool is_word_character(std::string_view character) {
  static const UnicodeRegex word =
      UnicodeRegex::raw(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}])", "word characters");
  return word.find(character, 0).has_value();
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && is_word_character(text.substr(0, next_utf8(text).length));
}

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word_character(text.substr(last_character(text)));
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), token_at_(1, -1), first_byte_(256) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    uint32_t node = 0;
    for (const char byte : tokens_[i].content) {
      const auto [child, added] =
          children_.try_emplace(edge(node, byte), static_cast<uint32_t>(token_at_.size()));
      if (added) token_at_.push_back(-1);
      node = child->second;
    }
    if (node == 0) continue;  // an empty token is found nowhere
    token_at_[node] = static_cast<int32_t>(i);
    first_byte_[static_cast<uint8_t>(tokens_[i].content[0])] = true;
  }
}

std::optional<AddedTokenFinder::Found> AddedTokenFinder::find(std::string_view text,
                                                              size_t start) const {
  for (; start < text.size(); ++start) {
    if (!first_byte_[static_cast<uint8_t>(text[start])]) continue;
    std::optional<Found> longest;
    uint32_t node = 0;
    for (size_t end = start; end < text.size(); ++end) {
      const auto child = children_.find(edge(node, text[end]));
      if (child == children_.end()) break;
      node = child->second;
      if (token_at_[node] >= 0) {
        longest = Found{&tokens_[static_cast<size_t>(token_at_[node])], {start, end + 1}};
      }
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

void AddedTokenFinder::split(std::string_view text, const Sink& sink) const {
  size_t done = 0, start = 0;
  while (const auto found = find(text, start)) {
    auto [begin, end] = found->range;
    start = end;
    const AddedToken& token = *found->token;
    if (token.single_word &&
        (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) {
      continue;
    }
    if (token.lstrip) begin = length_without_trailing_space(text.substr(0, begin));
    if (token.rstrip) end += leading_space(text.substr(end));
    begin = std::max(begin, done);
    if (done < begin) sink(std::nullopt, {done, begin});
    sink(token.id, {begin, end});
    done = end;
  }
  if (done < text.size()) sink(std::nullopt, {done, text.size()});
}

}  // namespace mambify
