// The last word of a text, as in LAMBADA (Paperno et al. 2016, arXiv 1606.06031).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "eval/tasks/pair_items.h"
#include "eval/tasks/task.h"
#include "eval/tasks/task_table.h"

namespace mambify {

// The continuation must be the greedy choice (`acc`). Chance: 0.
class LastWordTask : public Task {
 public:
  static constexpr const char* kKind = "last_word";

  // Each item has one continuation.
  LastWordTask(std::string name, std::vector<PairItem> items);
  // Lines {"context", "continuation"}; `template` is "{context} {continuation}" by default.
  static std::unique_ptr<Task> read(TaskTable& table);

  const char* kind() const override { return kKind; }
  int64_t size() const override { return static_cast<int64_t>(items_.size()); }
  TaskOutcome run(const TaskSubject& subject) const override;
  const std::vector<PairItem>& items() const { return items_; }

 private:
  std::vector<PairItem> items_;
};

}  // namespace mambify
