#include "eval/tasks/task_report.h"

#include <string>

#include "eval/statistics.h"

namespace mambify {
namespace {

using nlohmann::json;

json describe(const TaskOutcome& outcome) {
  json result = outcome.notes;
  for (const Metric& metric : outcome.metrics) {
    const Estimate mean = estimate(metric.values);
    result[metric.name] = mean.mean;
    result[metric.name + "_stderr"] = mean.error;
    result[metric.name + "_chance"] = metric.chance;
  }
  return result;
}

json describe(const PairedComparison& paired) {
  json result = {{"difference", paired.difference.mean},
                 {"difference_stderr", paired.difference.error},
                 {"difference_interval", {paired.interval.low, paired.interval.high}},
                 {"kept", nullptr},
                 {"kept_interval", nullptr}};
  if (paired.kept) result["kept"] = *paired.kept;
  if (paired.kept_interval) {
    result["kept_interval"] = {paired.kept_interval->low, paired.kept_interval->high};
  }
  return result;
}

}  // namespace

json to_json(const Task& task, const TaskOutcome& model, const TaskOutcome* teacher,
             uint64_t seed) {
  json result = describe(model);
  result["name"] = task.name();
  result["kind"] = task.kind();
  result["n"] = task.size();
  result["chance"] = model.metrics.front().chance;
  for (const Metric& metric : model.metrics) result["metrics"].push_back(metric.name);
  if (teacher == nullptr) return result;
  result["teacher"] = describe(*teacher);
  for (size_t i = 0; i < model.metrics.size(); ++i) {
    const Metric& metric = model.metrics[i];
    result["paired"][metric.name] =
        describe(compare_paired(metric.values, teacher->metrics[i].values, metric.chance, seed));
  }
  return result;
}

}  // namespace mambify
