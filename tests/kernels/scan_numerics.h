// What the tests of the two scans share: named results of a run, and the comparisons that each
// scan must pass.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "numerics.h"

namespace mambify::testing {

// Outputs or gradients by name.
template <typename T>
using Named = std::map<std::string, std::vector<T>>;

template <typename A, typename B>
void expect_close(const Named<A>& actual, const Named<B>& expected, double tolerance,
                  const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, values] : expected) {
    EXPECT_LT(max_relative_error(actual.at(name), values), tolerance) << name << ", " << what;
  }
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return false;
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Rows [begin, begin + count) of values laid out [tokens, values.size() / tokens].
template <typename T>
std::vector<T> rows_of(const std::vector<T>& values, int64_t tokens, int64_t begin, int64_t count) {
  const int64_t width = static_cast<int64_t>(values.size()) / tokens;
  return {values.begin() + begin * width, values.begin() + (begin + count) * width};
}

// Rows of `width` spread to a stride of `width + gap`, NaN between them, as the column slice of a
// wider matrix has them.
template <typename T>
std::vector<T> with_gaps(const std::vector<T>& values, int64_t width, int64_t gap) {
  const int64_t rows = static_cast<int64_t>(values.size()) / width;
  std::vector<T> spread = nan_values<T>(rows * (width + gap));
  for (int64_t i = 0; i < rows; ++i) {
    std::copy_n(values.begin() + i * width, width, spread.begin() + i * (width + gap));
  }
  return spread;
}

}  // namespace mambify::testing
