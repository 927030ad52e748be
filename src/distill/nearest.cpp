#include "distill/nearest.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace mambify {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates) {
  // A word from a file may be of any length; its beginning tells enough.
  const std::string_view start = word.substr(0, 64);
  return *std::ranges::min_element(
      candidates, {}, [&](std::string_view known) { return edit_distance(start, known); });
}

}  // namespace mambify
