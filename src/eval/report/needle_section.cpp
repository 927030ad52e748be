// Heat maps of the keys found, by length and depth.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "eval/report/sections.h"
#include "html/heat_map.h"

namespace mambify {
namespace {

// One map of a rate that cells have at a key.
std::string map_of(const ResultReader& result, const JsonReader& body, const std::string& title,
                   const std::string& key) {
  const auto lengths = result.body().require<std::vector<int64_t>>("lengths");
  const auto depths = result.body().require<std::vector<double>>("depths");
  const auto training_length = result.body().require<int64_t>("training_length");
  HeatMap map{.title = title,
              .x_title = "tokens",
              .y_title = "depth",
              .columns = {},
              .rows = {},
              .values = {}};
  for (const int64_t length : lengths) map.columns.push_back(fmt::format("{}", length));
  for (const double depth : depths) map.rows.push_back(fmt::format("{:.0f} %", 100 * depth));
  map.values.assign(depths.size(),
                    std::vector<double>(lengths.size(), std::numeric_limits<double>::quiet_NaN()));
  for (const JsonReader& cell : objects_at(body, "cells")) {
    const auto column = std::ranges::find(lengths, cell.require<int64_t>("length"));
    const auto row = std::ranges::find(depths, cell.require<double>("depth"));
    if (column == lengths.end() || row == depths.end()) {
      throw Error("{}: its length or depth is not in 'lengths' or 'depths'", cell.origin());
    }
    if (const auto value = cell.find<double>(key)) {
      map.values[row - depths.begin()][column - lengths.begin()] = *value;
    }
  }
  if (std::ranges::is_sorted(lengths) && lengths.front() <= training_length) {
    const auto beyond = std::ranges::upper_bound(lengths, training_length);
    map.limit_before = static_cast<int>(beyond - lengths.begin());
  }
  return svg(map) + "\n";
}

}  // namespace

std::string needle_section(const std::vector<EvalResult>& results, const ModelNames& names) {
  std::string maps;
  for (const EvalResult& one : results) {
    const ResultReader result(one);
    if (result.kind() != "needle") continue;
    const auto candidates = result.body().find<int64_t>("candidates");
    const auto add = [&](const std::string& model, const JsonReader& body) {
      maps += map_of(result, body, names.of(model) + ": keys found, %", "rate");
      if (!candidates) return;
      maps += map_of(result, body,
                     fmt::format("{}: right key likeliest of {}, %", names.of(model), *candidates),
                     "ranked_first");
    };
    add(result.model(), result.body());
    if (const auto teacher = result.teacher_body()) add(result.teacher(), *teacher);
  }
  if (maps.empty()) return "";
  return "<h2>Needle in a haystack</h2>\n<p>Keys found, by the prompt's length and by where in it "
         "the key stands (0 %: at its beginning). The dashed line is behind the longest text of "
         "training; grey is not measured.</p>\n<div class=\"plots\">\n" +
         maps + "</div>\n";
}

}  // namespace mambify
