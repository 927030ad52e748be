// A table of rates as coloured cells, as inline SVG.
#pragma once

#include <string>
#include <vector>

namespace mambify {

struct HeatMap {
  std::string title;
  std::string x_title, y_title;
  std::vector<std::string> columns, rows;   // names of the columns, and of the rows from the top
  std::vector<std::vector<double>> values;  // [row][column] in [0, 1]; not a number: no result
  int limit_before = -1;                    // a dashed line left of this column; -1: none
};

// From red at 0 over yellow to green at 1, with the value as a percentage in each cell.
std::string svg(const HeatMap& map);

}  // namespace mambify
