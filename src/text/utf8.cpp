#include "text/utf8.h"

#include <algorithm>
#include <cstdint>

namespace mambify {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// What a lead byte promises: how many bytes follow, and the range of the first of them, which is
// narrower where a longer form, a surrogate or a code point past U+10FFFF would begin.
struct Lead {
  size_t following;
  uint8_t low = 0x80, high = 0xBF;
};

Lead lead_of(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {1};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {2};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {3};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {0};
}

size_t ascii_prefix(std::string_view text) {
  return static_cast<size_t>(
      std::find_if(text.begin(), text.end(), [](char c) { return (c & 0x80) != 0; }) -
      text.begin());
}

}  // namespace

Utf8Char next_utf8(std::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  if (byte(0) < 0x80) return {Utf8Char::Kind::valid, 1, byte(0)};
  const Lead lead = lead_of(byte(0));
  if (lead.following == 0) return {Utf8Char::Kind::invalid, 1, 0};
  char32_t code = byte(0) & (0x3F >> lead.following);
  for (size_t i = 1; i <= lead.following; ++i) {
    if (i == bytes.size()) return {Utf8Char::Kind::incomplete, i, 0};
    const uint8_t low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xBF;
    if (byte(i) < low || byte(i) > high) return {Utf8Char::Kind::invalid, i, 0};
    code = code << 6 | (byte(i) & 0x3F);
  }
  return {Utf8Char::Kind::valid, lead.following + 1, code};
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    text.remove_prefix(ascii_prefix(text));
    if (text.empty()) break;
    const Utf8Char next = next_utf8(text);
    if (next.kind != Utf8Char::Kind::valid) return false;
    text.remove_prefix(next.length);
  }
  return true;
}

std::string to_valid_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const size_t ascii = ascii_prefix(text);
    result += text.substr(0, ascii);
    text.remove_prefix(ascii);
    if (text.empty()) break;
    const Utf8Char next = next_utf8(text);
    result += next.kind == Utf8Char::Kind::valid ? text.substr(0, next.length) : kReplacement;
    text.remove_prefix(next.length);
  }
  return result;
}

size_t complete_utf8_length(std::string_view text) {
  // A cut-off character is at most three bytes long.
  for (size_t tail = std::min<size_t>(3, text.size()); tail > 0; --tail) {
    const Utf8Char next = next_utf8(text.substr(text.size() - tail));
    if (next.kind == Utf8Char::Kind::incomplete && next.length == tail) return text.size() - tail;
  }
  return text.size();
}

void append_utf8(std::string& text, char32_t code) {
  const auto put = [&](char32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

bool is_unicode_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

}  // namespace mambify
