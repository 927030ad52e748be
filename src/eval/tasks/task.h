// What a benchmark is to the program: something that a model runs, one score for each item.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "eval/tasks/task_subject.h"

namespace mambify {

// One way to count an item as right.
struct Metric {
  std::string name;
  std::vector<double> values;  // per item, 0 to 1
  double chance = 0;           // what guessing scores
};

struct TaskOutcome {
  std::vector<Metric> metrics;  // over the same items; the first is the one to look at
  // What else a kind of task tells, by name: numbers, or a list of rows of them.
  nlohmann::json notes = nlohmann::json::object();
  std::vector<nlohmann::json> samples;  // per item: what the model made of it
};

class Task {
 public:
  explicit Task(std::string name) : name_(std::move(name)) {}
  virtual ~Task() = default;
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;

  const std::string& name() const { return name_; }
  virtual const char* kind() const = 0;  // as the task file has it
  virtual int64_t size() const = 0;      // items
  // Throws Error when this model cannot run the task; called for every task before the first runs.
  virtual void check(const TaskSubject&) const {}
  virtual TaskOutcome run(const TaskSubject& subject) const = 0;

 private:
  std::string name_;
};

}  // namespace mambify
