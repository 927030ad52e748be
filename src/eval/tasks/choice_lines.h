// A line of a file of multiple-choice questions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/json_reader.h"

namespace mambify {

struct ChoiceLine {
  std::string query;
  std::vector<std::string> choices;  // at least one
  int64_t gold = 0;                  // the right one's number
};

// {"query", "choices", "gold"}. Throws Error naming the key.
ChoiceLine read_choice_line(const JsonReader& line);

}  // namespace mambify
