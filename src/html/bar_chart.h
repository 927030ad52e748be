// Bars side by side, as inline SVG.
#pragma once

#include <string>
#include <vector>

namespace mambify {

struct BarChart {
  std::string title, x_title;
  std::vector<std::string> names;  // one a bar
  std::vector<double> values;      // not negative
};

std::string svg(const BarChart& chart);

}  // namespace mambify
