// mambify eval tasks.
#include <fmt/format.h>

#include <memory>

#include "decoding_options.h"
#include "eval/tasks/task_file.h"
#include "eval/tasks/task_report.h"
#include "eval_verbs.h"

namespace mambify {
namespace {

using nlohmann::json;
using Tasks = std::vector<std::unique_ptr<Task>>;

struct TasksVerbOptions {
  CommonOptions common;
  TaskSubjectOptions subject;
  std::string model, teacher, tasks, samples;
  int64_t limit = 0;
};

std::vector<TaskOutcome> measure(const std::string& path, const Tasks& tasks,
                                 const TasksVerbOptions& options) {
  TaskSubjectOptions subject_options = options.subject;
  subject_options.seed = options.common.seed;
  Tokenizer tokenizer = Tokenizer::load(path);
  const TaskSubject subject(load_compute_model(path, options.common), std::move(tokenizer),
                            subject_options);
  for (const auto& task : tasks) task->check(subject);
  std::vector<TaskOutcome> outcomes;
  for (const auto& task : tasks) outcomes.push_back(task->run(subject));
  return outcomes;
}

std::string sample_lines(const std::string& path, const Tasks& tasks,
                         const std::vector<TaskOutcome>& outcomes) {
  std::string lines;
  for (size_t t = 0; t < outcomes.size(); ++t) {
    for (size_t i = 0; i < outcomes[t].samples.size(); ++i) {
      json line = outcomes[t].samples[i];
      line["model"] = path;
      line["task"] = tasks[t]->name();
      line["item"] = i;
      lines += line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
    }
  }
  return lines;
}

std::string interval_text(const json& interval) {
  return interval.is_null() ? ""
                            : fmt::format(" [{:.3f}, {:.3f}]", interval[0].get<double>(),
                                          interval[1].get<double>());
}

void print_metric(const json& task, const std::string& metric) {
  const std::string error = metric + "_stderr", chance = metric + "_chance";
  fmt::print("  {:<17} {:.4f} +- {:.4f} (chance {:.3f})", metric, task[metric].get<double>(),
             task[error].get<double>(), task[chance].get<double>());
  if (task.contains("teacher")) {
    const json& teacher = task["teacher"];
    const json& paired = task["paired"][metric];
    fmt::print("   teacher {:.4f} +- {:.4f}   difference {:+.4f}{}", teacher[metric].get<double>(),
               teacher[error].get<double>(), paired["difference"].get<double>(),
               interval_text(paired["difference_interval"]));
    if (!paired["kept"].is_null()) {
      fmt::print("   kept above chance {:.3f}{}", paired["kept"].get<double>(),
                 interval_text(paired["kept_interval"]));
    }
  }
  fmt::print("\n");
}

std::string note_text(const json& value) {
  if (value.is_number_float()) return fmt::format("{:.3f}", value.get<double>());
  if (value.is_string()) return value.get<std::string>();
  return value.is_null() ? "-" : value.dump();
}

// "letter A  chosen 0.250  gold 0.333": what a row is of, then its numbers.
std::string row_text(const json& row) {
  std::string names, numbers;
  for (const auto& [name, value] : row.items()) {
    (value.is_string() ? names : numbers) += fmt::format("{} {}  ", name, note_text(value));
  }
  return names + numbers;
}

void print_notes(const char* who, const json& notes, const json& described) {
  for (const auto& [name, none] : notes.items()) {
    const json& value = described[name];
    if (!value.is_array()) {
      fmt::print("  {:<17} {}{}\n", name, note_text(value), who);
      continue;
    }
    for (const json& row : value) fmt::print("  {:<17} {}{}\n", name, row_text(row), who);
  }
}

void print_task(const json& task, const json& notes) {
  fmt::print("{} ({} items)\n", task["name"].get<std::string>(), task["n"].get<int64_t>());
  for (const json& metric : task["metrics"]) print_metric(task, metric.get<std::string>());
  print_notes("", notes, task);
  if (task.contains("teacher")) print_notes("   teacher", notes, task["teacher"]);
}

void run(const TasksVerbOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  const Tasks tasks = read_tasks(options.tasks, options.limit);
  const std::vector<TaskOutcome> model = measure(options.model, tasks, options);
  std::vector<TaskOutcome> teacher;
  if (!options.teacher.empty()) teacher = measure(options.teacher, tasks, options);
  json results = json::array();
  for (size_t i = 0; i < tasks.size(); ++i) {
    results.push_back(
        to_json(*tasks[i], model[i], teacher.empty() ? nullptr : &teacher[i], options.common.seed));
  }
  if (!options.samples.empty()) {
    write_file_atomically(options.samples, sample_lines(options.model, tasks, model) +
                                               sample_lines(options.teacher, tasks, teacher));
  }
  if (options.common.json) {
    print_json({{"about", about_result("tasks", options.common, options.model, options.teacher,
                                       options.tasks)},
                {"tasks", results}});
    return;
  }
  for (size_t i = 0; i < tasks.size(); ++i) print_task(results[i], model[i].notes);
}

}  // namespace

void add_eval_tasks(CLI::App& eval) {
  CLI::App* verb = eval.add_subcommand(
      "tasks",
      "Benchmarks. By likelihood: choice, multiple choice, and last_word. By what the model "
      "writes, which is what its users get: number, an answer that is a number, as in GSM8K, and "
      "choice_in_words, multiple choice with the options in each rotation");
  auto options = std::make_shared<TasksVerbOptions>();
  add_model_option(*verb, "--model", options->model, "the model")->required();
  add_model_option(*verb, "--teacher", options->teacher, "a model to compare with, item by item");
  verb->add_option("--tasks", options->tasks,
                   "TOML list of tasks (recipes/tasks.toml and recipes/generation.toml are some)")
      ->required();
  verb->add_option("--limit", options->limit, "items of each task (0: all)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--batch", options->subject.rows, "answers written side by side")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  add_chat_template_option(*verb, options->subject.chat_template);
  verb->add_option("--samples", options->samples,
                   "write what the model made of each item, a JSON line each");
  add_common_options(*verb, options->common);
  verb->callback([options] { run(*options); });
}

}  // namespace mambify
