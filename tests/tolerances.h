// The one table of how far a result may lie from its reference. Errors are those of
// max_relative_error in numerics.h: relative to the largest magnitude of the reference.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace mambify::testing {

struct Tolerance {
  std::string_view device, dtype;
  double output;    // outputs and final states
  double gradient;  // every gradient
};

inline constexpr Tolerance kTolerances[] = {
    // fp64 holds the reference against numerical differentiation, whose own error is the limit.
    {"cpu", "fp64", 1e-12, 1e-6},
    {"cpu", "fp32", 5e-6, 2e-5},
    // Inputs and outputs are rounded to 8 bits, what happens between is fp32.
    {"cpu", "bf16", 8e-3, 2e-2},
    {"cuda", "fp32", 1e-5, 2e-5},
    {"cuda", "bf16", 8e-3, 2e-2},
};

inline Tolerance tolerance(std::string_view device, std::string_view dtype) {
  for (const Tolerance& row : kTolerances) {
    if (row.device == device && row.dtype == dtype) return row;
  }
  throw std::out_of_range("no tolerance for " + std::string(device) + " " + std::string(dtype));
}

}  // namespace mambify::testing
