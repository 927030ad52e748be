// What it costs to convert each layer: bars.
#include <fmt/format.h>

#include "core/error.h"
#include "eval/report/sections.h"
#include "html/bar_chart.h"

namespace mambify {
namespace {

std::string bars_of(const ResultReader& result, const std::string& title) {
  BarChart alone{
      .title = title + ": each layer alone", .x_title = "layer", .names = {}, .values = {}};
  for (const JsonReader& layer : objects_at(result.body(), "alone")) {
    alone.names.push_back(fmt::format("{}", layer.require<int64_t>("layer")));
    alone.values.push_back(layer.require<double>("kl"));
  }
  const auto order = result.body().require<std::vector<int64_t>>("order");
  BarChart together{.title = title + ": all up to this one",
                    .x_title = "layers in the order of conversion",
                    .names = {},
                    .values = result.body().require<std::vector<double>>("order_kl")};
  for (const int64_t layer : order) together.names.push_back(fmt::format("{}", layer));
  if (together.names.size() != together.values.size()) {
    throw Error("{}: 'order' has {} layers, 'order_kl' {} numbers", result.body().origin(),
                together.names.size(), together.values.size());
  }
  return svg(alone) + "\n" + svg(together) + "\n";
}

}  // namespace

std::string sensitivity_section(const std::vector<EvalResult>& results, const ModelNames& names) {
  std::string charts;
  for (const EvalResult& one : results) {
    const ResultReader result(one);
    if (result.kind() != "sensitivity") continue;
    // Without a student the teacher's layers were converted afresh.
    const std::string& of = result.model().empty() ? result.teacher() : result.model();
    charts += bars_of(result, of.empty() ? "" : names.of(of));
  }
  if (charts.empty()) return "";
  return "<h2>Sensitivity of layers</h2>\n<p>KL to the teacher in nats per token when attention "
         "layers are converted.</p>\n<div class=\"plots\">\n" +
         charts + "</div>\n";
}

}  // namespace mambify
