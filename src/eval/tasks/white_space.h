// ASCII white space at the ends of a text.
#pragma once

#include <string_view>

namespace mambify {

inline constexpr std::string_view kWhiteSpace = " \t\n\v\f\r";

inline std::string_view trim_end(std::string_view text) {
  const size_t last = text.find_last_not_of(kWhiteSpace);
  return last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
}

inline std::string_view trim_start(std::string_view text) {
  const size_t first = text.find_first_not_of(kWhiteSpace);
  return first == std::string_view::npos ? std::string_view() : text.substr(first);
}

inline std::string_view trim(std::string_view text) { return trim_start(trim_end(text)); }

}  // namespace mambify
