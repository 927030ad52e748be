// One page that puts the results of evaluations side by side: a teacher and its students by metric,
// needle heat maps, sensitivities, and the commands that measured them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace mambify {

// What `mambify eval KIND --json` printed.
struct EvalResult {
  std::string file;  // what messages call it
  nlohmann::json json;
};

// Reads one. Throws Error when the file does not hold a result of a kind that has a section.
EvalResult read_eval_result(const fs::path& file);

// HTML that needs nothing else. Throws Error naming the file and the key of a result that lacks
// what its kind has.
std::string report_page(const std::vector<EvalResult>& results, std::string_view title);

}  // namespace mambify
