// Multiple choice by likelihood, scored as EleutherAI's lm-evaluation-harness scores it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "eval/tasks/pair_items.h"
#include "eval/tasks/task.h"
#include "eval/tasks/task_table.h"

namespace mambify {

// The likeliest choice must be the gold one: `acc` by total log-likelihood, `acc_norm` by that per
// character of the choice. Chance: the mean of 1 / choices.
class ChoiceTask : public Task {
 public:
  static constexpr const char* kKind = "choice";

  ChoiceTask(std::string name, std::vector<PairItem> items);
  // Lines {"query", "choices", "gold"}; `template` is "{query}\nAnswer: {choice}" by default.
  static std::unique_ptr<Task> read(TaskTable& table);

  const char* kind() const override { return kKind; }
  int64_t size() const override { return static_cast<int64_t>(items_.size()); }
  TaskOutcome run(const TaskSubject& subject) const override;
  const std::vector<PairItem>& items() const { return items_; }

 private:
  std::vector<PairItem> items_;
};

}  // namespace mambify
