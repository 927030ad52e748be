// A table of models down and metrics across.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "eval/report/sections.h"

namespace mambify {

// "12.34 ± 0.12" as HTML: the number at a key, and at key + "_stderr" if there is one; "" where
// there is no number.
std::string value_cell(const JsonReader& reader, const std::string& key, int digits);

class ModelTable {
 public:
  // row: a model's path, or any other text, which comes behind the models. cell: HTML; an empty one
  // is ignored, one that differs from what is there stands below it.
  void set(const std::string& row, const std::string& column, const std::string& cell);

  // "" without cells.
  std::string html(const ModelNames& names) const;

 private:
  std::vector<std::string> columns_;
  std::map<std::string, std::map<std::string, std::vector<std::string>>> rows_;
};

}  // namespace mambify
