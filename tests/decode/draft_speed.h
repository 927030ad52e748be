// What decoding with guesses could reach.
#pragma once

#include <cstdint>

namespace mambify {

constexpr int64_t kMost = 15;  // guesses at once

// Tokens per second of one sequence that always guesses so many tokens.
inline double speed(double acceptance, double guess, int64_t length) {
  double tokens = 1, right = acceptance;
  for (int64_t i = 0; i < length; ++i, right *= acceptance) tokens += right;
  return tokens / (1 + guess * static_cast<double>(length));
}

}  // namespace mambify
