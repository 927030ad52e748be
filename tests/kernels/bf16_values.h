// Vectors of fp32 and bf16, for tests of kernels that read and write both.
#pragma once

#include <vector>

#include "kernels/bf16.h"
#include "tolerances.h"

namespace mambify::kernels {

template <typename T>
std::vector<T> narrowed(const std::vector<float>& values) {
  std::vector<T> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) store(values[i], result[i]);
  return result;
}

template <typename T>
std::vector<float> widened(const std::vector<T>& values) {
  std::vector<float> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) result[i] = to_float(values[i]);
  return result;
}

inline double output_tolerance(float) { return testing::tolerance("cpu", "fp32").output; }
inline double output_tolerance(Bf16) { return testing::tolerance("cpu", "bf16").output; }

// The share of elements that are not the same bits.
template <typename T>
double share_of_different(const std::vector<T>& a, const std::vector<T>& b) {
  double different = 0;
  for (size_t i = 0; i < a.size(); ++i) different += a[i] != b[i];
  return different / static_cast<double>(a.size());
}

}  // namespace mambify::kernels
