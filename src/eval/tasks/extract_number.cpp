#include "eval/tasks/extract_number.h"

#include <algorithm>

#include "eval/tasks/white_space.h"

namespace mambify {
namespace {

constexpr std::string_view kDigits = "0123456789";

// How many characters from `at` on are among these.
size_t run_length(std::string_view text, size_t at, std::string_view characters) {
  const size_t end = std::min(text.find_first_not_of(characters, at), text.size());
  return end > at ? end - at : 0;
}

// The length of the match of `-?[characters]{least,}` at a place; 0 for none.
size_t match_length(std::string_view text, size_t at, std::string_view characters, size_t least) {
  const size_t sign = at < text.size() && text[at] == '-' ? 1 : 0;
  const size_t length = run_length(text, at + sign, characters);
  return length >= least ? sign + length : 0;
}

}  // namespace

std::optional<std::string> marked_number(std::string_view text, std::string_view marker) {
  for (size_t at = text.find(marker); at != std::string_view::npos;
       at = text.find(marker, at + 1)) {
    const size_t start = at + marker.size();
    const size_t length = match_length(text, start, "0123456789.,", 1);
    if (length > 0) return std::string(text.substr(start, length));
  }
  return std::nullopt;
}

std::optional<std::string> last_number(std::string_view text) {
  std::optional<std::string> last;
  for (size_t at = 0; at < text.size();) {
    size_t length = match_length(text, at, "$0123456789.,", 2);
    if (length == 0) length = match_length(text, at, kDigits, 1);
    if (length > 0) last = std::string(text.substr(at, length));
    at += std::max<size_t>(length, 1);
  }
  return last;
}

std::string normalise_number(std::string_view number) {
  std::string text(trim(number));
  std::erase_if(text, [](char c) { return c == ',' || c == '$'; });
  constexpr std::string_view kMarker = "#### ";
  if (const size_t at = text.rfind(kMarker); at != std::string::npos) {
    text.erase(0, at + kMarker.size());
  }
  if (text.ends_with('.')) text.pop_back();
  return text;
}

}  // namespace mambify
