#include "text/byte_level.h"

#include <array>

#include "text/utf8.h"

namespace mambify {
namespace {

struct Alphabet {
  std::array<char32_t, 256> of_byte;
  // No character of the alphabet is above U+0143.
  std::array<int16_t, 0x144> of_char;
};

// Bytes that are visible in Latin-1 stand for themselves; the others take the characters from
// U+0100 on, in order.
constexpr Alphabet make_alphabet() {
  Alphabet alphabet{};
  for (int16_t& entry : alphabet.of_char) entry = -1;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool visible = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    const char32_t code = visible ? static_cast<char32_t>(byte) : next++;
    alphabet.of_byte[static_cast<size_t>(byte)] = code;
    alphabet.of_char[code] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::string to_byte_level(std::string_view bytes) {
  std::string piece;
  for (const char byte : bytes) append_utf8(piece, kAlphabet.of_byte[static_cast<uint8_t>(byte)]);
  return piece;
}

std::optional<std::string> from_byte_level(std::string_view piece) {
  std::string bytes;
  while (!piece.empty()) {
    const Utf8Char next = next_utf8(piece);
    if (next.kind != Utf8Char::Kind::valid || next.code >= kAlphabet.of_char.size() ||
        kAlphabet.of_char[next.code] < 0) {
      return std::nullopt;
    }
    bytes += static_cast<char>(kAlphabet.of_char[next.code]);
    piece.remove_prefix(next.length);
  }
  return bytes;
}

}  // namespace mambify
