// Questions whose answer is a number that the model writes, as in GSM8K (Cobbe et al. 2021, arXiv
// 2110.14168).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "eval/answers/answering.h"
#include "eval/tasks/task.h"

namespace mambify {

struct NumberItem {
  std::string question;  // as the model sees it
  std::string gold;      // as normalise_number leaves it
};

// `strict_match` counts numbers behind the marker, `flexible_extract` the last number of the text;
// both compare digit by digit. Chance: 0.
class NumberTask : public Task {
 public:
  static constexpr const char* kKind = "number";

  NumberTask(std::string name, std::vector<NumberItem> items, Answering answering,
             std::string marker = "#### ");
  // Lines {"question", "answer"} whose answer ends in "#### 42", as GSM8K's, or {"query", "gold"}.
  // `template` is "Question: {query}\nAnswer:" by default, `marker` "#### ". `shots` lines of
  // `shots_file` are shown first. Plain text unless `chat` is true, then ending at "Question:".
  static std::unique_ptr<Task> read(TaskTable& table);

  const char* kind() const override { return kKind; }
  int64_t size() const override { return static_cast<int64_t>(items_.size()); }
  void check(const TaskSubject& subject) const override;
  // Notes: `unparsed_strict` and `unparsed_flexible`, answers without such a number, and `cut`,
  // answers that reached max_tokens.
  TaskOutcome run(const TaskSubject& subject) const override;
  const std::vector<NumberItem>& items() const { return items_; }
  const Answering& answering() const { return answering_; }

 private:
  std::vector<GenerationRequest> requests(const TaskSubject& subject) const;

  std::vector<NumberItem> items_;
  Answering answering_;
  std::string marker_;
};

}  // namespace mambify
