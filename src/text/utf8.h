// UTF-8 as a stream of characters, with the replacement rule every decoder here follows.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mambify {

// The character at the front of some bytes.
struct Utf8Char {
  enum class Kind {
    valid,
    invalid,    // `length` bytes that no continuation could make valid
    incomplete  // all the bytes there are: the start of a character, cut off
  };
  Kind kind;
  size_t length;  // >= 1
  char32_t code;  // valid only
};

// bytes must not be empty. The length of an invalid sequence is its maximal subpart (Unicode
// standard, section 3.9), which one U+FFFD replaces: the rule of Python, Rust and the web.
Utf8Char next_utf8(std::string_view bytes);

bool is_valid_utf8(std::string_view text);
// The same text with U+FFFD for whatever is not UTF-8, a cut-off end included.
std::string to_valid_utf8(std::string_view text);
// Length of the text without a cut-off character at its end.
size_t complete_utf8_length(std::string_view text);

void append_utf8(std::string& text, char32_t code);

// Unicode's White_Space property.
bool is_unicode_space(char32_t code);

}  // namespace mambify
