// Benchmarks: each metric with its standard error, and what a student kept of its teacher's score.
#include <fmt/format.h>

#include "eval/report/model_table.h"

namespace mambify {
namespace {

constexpr std::string_view kError = "_stderr";

// Every key that comes with a standard error.
std::vector<std::string> metrics_of(const JsonReader& task) {
  std::vector<std::string> metrics;
  for (const auto& [key, value] : task.json().items()) {
    if (value.is_number() && task.has(key + std::string(kError))) metrics.push_back(key);
  }
  return metrics;
}

// "kept 0.95 [0.90, 1.01]", corrected for chance.
std::string kept_text(const JsonReader& task, const std::string& metric) {
  if (!task.has("paired")) return "";
  const JsonReader all = task.object("paired");
  if (!all.has(metric)) return "";
  const JsonReader paired = all.object(metric);
  const auto kept = paired.find<double>("kept");
  if (!kept) return "";
  std::string text = fmt::format("<br>kept {:.2f}", *kept);
  const auto interval = paired.find<std::vector<double>>("kept_interval");
  if (interval && interval->size() == 2) {
    text += fmt::format(" <span class=\"error\">[{:.2f}, {:.2f}]</span>", (*interval)[0],
                        (*interval)[1]);
  }
  return text;
}

}  // namespace

std::string tasks_section(const std::vector<EvalResult>& results, const ModelNames& names) {
  ModelTable table;
  for (const EvalResult& one : results) {
    const ResultReader result(one);
    if (result.kind() != "tasks") continue;
    for (const JsonReader& task : objects_at(result.body(), "tasks")) {
      const auto name = task.require<std::string>("name");
      for (const std::string& metric : metrics_of(task)) {
        const std::string column = name + " " + metric;
        table.set(result.model(), column, value_cell(task, metric, 3) + kept_text(task, metric));
        const std::string own_chance = metric + "_chance";
        table.set("(chance)", column,
                  value_cell(task, task.has(own_chance) ? own_chance : "chance", 3));
        if (!task.has("teacher")) continue;
        table.set(result.teacher(), column, value_cell(task.object("teacher"), metric, 3));
      }
    }
  }
  const std::string html = table.html(names);
  if (html.empty()) return "";
  return "<h2>Tasks</h2>\n<p>± is one standard error. Kept is (student - chance) / (teacher - "
         "chance) on the same items, with its 95 % interval.</p>\n" +
         html;
}

}  // namespace mambify
