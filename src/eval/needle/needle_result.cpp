#include "eval/needle/needle_result.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "eval/statistics.h"

namespace mambify {
namespace {

using nlohmann::json;

// Of the cells that `counts` takes.
template <typename Counts>
json rates(const std::vector<NeedleCell>& cells, const NeedleScope& scope, const Counts& counts) {
  std::vector<double> hits, first, nll;
  for (const NeedleCell& cell : cells) {
    if (!counts(cell)) continue;
    for (const NeedleTrial& trial : cell.trials) {
      hits.push_back(trial.hit ? 1 : 0);
      first.push_back(trial.ranked_first ? 1 : 0);
      nll.push_back(trial.key_nll);
    }
  }
  if (hits.empty()) return {{"n", 0}};
  const Estimate rate = estimate(hits);
  json result = {{"n", hits.size()},
                 {"hits", std::llround(rate.mean * static_cast<double>(hits.size()))},
                 {"rate", rate.mean},
                 {"stderr", rate.error}};
  if (!scope.likelihood) return result;
  const Estimate ranked = estimate(first), key_nll = estimate(nll);
  result.update({{"ranked_first", ranked.mean},
                 {"ranked_first_stderr", ranked.error},
                 {"key_nll", key_nll.mean},
                 {"key_nll_stderr", key_nll.error}});
  return result;
}

json describe(const NeedleCell& cell, const NeedleScope& scope) {
  json result = rates({cell}, scope, [](const NeedleCell&) { return true; });
  result.update({{"length", cell.length}, {"depth", cell.depth}});
  if (scope.max_positions > 0 && cell.length > scope.max_positions) {
    result["beyond_positions"] = true;
  }
  if (!cell.error.empty()) result["error"] = cell.error;
  if (cell.trials.empty()) return result;
  int64_t tokens = 0;
  for (const NeedleTrial& trial : cell.trials) tokens += trial.prompt_tokens;
  result["prompt_tokens"] = static_cast<double>(tokens) / static_cast<double>(cell.trials.size());
  return result;
}

}  // namespace

json to_json(const std::vector<NeedleCell>& cells, const NeedleScope& scope) {
  json result = {{"max_positions", scope.max_positions}, {"cells", json::array()}};
  for (const NeedleCell& cell : cells) result["cells"].push_back(describe(cell, scope));
  result["overall"] = rates(cells, scope, [](const NeedleCell&) { return true; });
  result["within_training_length"] = rates(
      cells, scope, [&](const NeedleCell& cell) { return cell.length <= scope.training_length; });
  result["beyond_training_length"] = rates(
      cells, scope, [&](const NeedleCell& cell) { return cell.length > scope.training_length; });
  return result;
}

}  // namespace mambify
