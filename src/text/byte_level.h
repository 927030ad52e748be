// GPT-2's byte alphabet: every byte written as one printable character, so that a vocabulary of
// byte strings can be stored as text (" the" is stored as "Ġthe").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mambify {

// Bytes as the vocabulary writes them.
std::string to_byte_level(std::string_view bytes);
// The bytes a piece of the vocabulary stands for; nullopt when it has characters outside the
// alphabet (added tokens may).
std::optional<std::string> from_byte_level(std::string_view piece);

}  // namespace mambify
