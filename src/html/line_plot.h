// A line chart as inline SVG.
#pragma once

#include <string>
#include <vector>

namespace mambify {

struct Plot {
  std::string title;
  std::vector<double> x, y;      // in order of x; the y that are not finite are left out
  std::vector<double> dividers;  // x of vertical lines: where a stage begins
  bool logarithmic = false;      // y axis; falls back to linear when a value is not positive
};

// The values, and over them their running mean.
std::string svg(const Plot& plot);

}  // namespace mambify
