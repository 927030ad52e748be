// mambify eval tasks.
#include <fmt/format.h>

#include <memory>

#include "eval/statistics.h"
#include "eval/tasks.h"
#include "eval_verbs.h"

namespace mambify {
namespace {

using nlohmann::json;

struct TasksVerbOptions {
  CommonOptions common;
  std::string model, teacher, tasks;
  int64_t limit = 0;
};

std::vector<TaskOutcome> measure(const std::string& path, const std::vector<Task>& tasks,
                                 const CommonOptions& common) {
  const Tokenizer tokenizer = Tokenizer::load(path);
  const Model model = load_compute_model(path, common);
  std::vector<TaskOutcome> outcomes;
  for (const Task& task : tasks) outcomes.push_back(run_task(model, tokenizer, task));
  return outcomes;
}

json describe(const TaskOutcome& outcome) {
  const Estimate acc = estimate(outcome.acc);
  json result = {{"acc", acc.mean}, {"acc_stderr", acc.error}};
  if (outcome.acc_norm.empty()) return result;
  const Estimate acc_norm = estimate(outcome.acc_norm);
  result["acc_norm"] = acc_norm.mean;
  result["acc_norm_stderr"] = acc_norm.error;
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

json describe(const Task& task, const TaskOutcome& model, const TaskOutcome* teacher,
              uint64_t seed) {
  json result = describe(model);
  result["name"] = task.name;
  result["n"] = task.items.size();
  result["chance"] = task.chance;
  if (teacher == nullptr) return result;
  result["teacher"] = describe(*teacher);
  result["paired"]["acc"] = describe(compare_paired(model.acc, teacher->acc, task.chance, seed));
  if (!model.acc_norm.empty()) {
    result["paired"]["acc_norm"] =
        describe(compare_paired(model.acc_norm, teacher->acc_norm, task.chance, seed));
  }
  return result;
}

std::string interval_text(const json& interval) {
  return interval.is_null() ? ""
                            : fmt::format(" [{:.3f}, {:.3f}]", interval[0].get<double>(),
                                          interval[1].get<double>());
}

void print_task(const json& task) {
  fmt::print("{} ({} items, chance {:.3f})\n", task["name"].get<std::string>(),
             task["n"].get<int64_t>(), task["chance"].get<double>());
  for (const std::string metric : {"acc", "acc_norm"}) {
    if (!task.contains(metric)) continue;
    const std::string error = metric + "_stderr";
    fmt::print("  {:<9} {:.4f} +- {:.4f}", metric, task[metric].get<double>(),
               task[error].get<double>());
    if (task.contains("teacher")) {
      const json& teacher = task["teacher"];
      const json& paired = task["paired"][metric];
      fmt::print("   teacher {:.4f} +- {:.4f}   difference {:+.4f}{}",
                 teacher[metric].get<double>(), teacher[error].get<double>(),
                 paired["difference"].get<double>(), interval_text(paired["difference_interval"]));
      if (!paired["kept"].is_null()) {
        fmt::print("   kept above chance {:.3f}{}", paired["kept"].get<double>(),
                   interval_text(paired["kept_interval"]));
      }
    }
    fmt::print("\n");
  }
}

void run(const TasksVerbOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  const std::vector<Task> tasks = read_tasks(options.tasks, options.limit);
  const std::vector<TaskOutcome> model = measure(options.model, tasks, options.common);
  std::vector<TaskOutcome> teacher;
  if (!options.teacher.empty()) teacher = measure(options.teacher, tasks, options.common);
  json results = json::array();
  for (size_t i = 0; i < tasks.size(); ++i) {
    results.push_back(
        describe(tasks[i], model[i], teacher.empty() ? nullptr : &teacher[i], options.common.seed));
  }
  if (options.common.json) {
    print_json({{"about", about_result("tasks", options.common, options.model, options.teacher,
                                       options.tasks)},
                {"tasks", results}});
    return;
  }
  for (const json& result : results) print_task(result);
}

}  // namespace

void add_eval_tasks(CLI::App& eval) {
  CLI::App* verb = eval.add_subcommand("tasks", "Benchmarks of multiple choice and last words");
  auto options = std::make_shared<TasksVerbOptions>();
  add_model_option(*verb, "--model", options->model, "the model")->required();
  add_model_option(*verb, "--teacher", options->teacher, "a model to compare with, item by item");
  verb->add_option("--tasks", options->tasks, "TOML list of tasks (recipes/tasks.toml shows one)")
      ->required();
  verb->add_option("--limit", options->limit, "items of each task (0: all)")
      ->check(CLI::NonNegativeNumber);
  add_common_options(*verb, options->common);
  verb->callback([options] { run(*options); });
}

}  // namespace mambify
