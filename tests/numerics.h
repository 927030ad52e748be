// What tests of numbers share: inputs, errors, numerical gradients.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <span>
#include <vector>

namespace mambify::testing {

// Lengths at which kernels that work in blocks go wrong.
inline constexpr int64_t kLengths[] = {1, 3, 63, 64, 65, 500};

// Normally distributed, rounded to fp32 so that the float and the double version of a test see the
// same inputs.
template <typename T>
std::vector<T> random_values(int64_t count, uint64_t seed, double scale = 1, double mean = 0) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal(mean, scale);
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<float>(normal(engine));
  return values;
}

// Memory that a kernel must write before it reads.
template <typename T>
std::vector<T> nan_values(int64_t count) {
  return std::vector<T>(count, std::numeric_limits<T>::quiet_NaN());
}

template <typename To, typename From>
std::vector<To> converted(const std::vector<From>& values) {
  return std::vector<To>(values.begin(), values.end());
}

// The largest difference over the largest magnitude of `expected`; infinite when the sizes differ
// or either holds a NaN. Where everything expected is zero, the largest difference itself.
template <typename A, typename B>
double max_relative_error(std::span<const A> actual, std::span<const B> expected) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (actual.size() != expected.size()) return kInfinity;
  double difference = 0, magnitude = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(double(actual[i]) - double(expected[i]));
    if (std::isnan(error)) return kInfinity;
    difference = std::max(difference, error);
    magnitude = std::max(magnitude, std::abs(double(expected[i])));
  }
  return magnitude > 0 ? difference / magnitude : difference;
}

template <typename A, typename B>
double max_relative_error(const std::vector<A>& actual, const std::vector<B>& expected) {
  return max_relative_error(std::span<const A>(actual), std::span<const B>(expected));
}

// Central differences of a scalar function of `x`, which f reads through the same vector and which
// is left as it was.
inline std::vector<double> numerical_gradient(const std::function<double()>& f,
                                              std::vector<double>& x, double step = 1e-5) {
  std::vector<double> gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i];
    x[i] = kept + step;
    const double above = f();
    x[i] = kept - step;
    const double below = f();
    x[i] = kept;
    gradient[i] = (above - below) / (2 * step);
  }
  return gradient;
}

}  // namespace mambify::testing
