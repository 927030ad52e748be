// Multiple choice that the model answers in words, the options in every order of a rotation.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "eval/answers/answering.h"
#include "eval/tasks/choice_lines.h"
#include "eval/tasks/question_template.h"
#include "eval/tasks/task.h"

namespace mambify {

// The model sees the question with lettered options and writes an answer, which chosen_option
// reads. Each question is asked once for each rotation of its options. `acc` is the share of right
// answers of a question; `consistent_acc` is 1 when all of them are right. Chance is that of
// drawing a letter anew each time: 1 / options, and that to the power of the rotations.
class WordedChoiceTask : public Task {
 public:
  static constexpr const char* kKind = "choice_in_words";

  // rotations: of each question, spread evenly over its options; 0, and more than it has options:
  // as many as these. form: has "{query}" and "{options}".
  WordedChoiceTask(std::string name, std::vector<ChoiceLine> items, QuestionTemplate form,
                   int64_t rotations, Answering answering);
  // Lines {"query", "choices", "gold"}. `template` has {query} and {options}, the latter a line
  // "A. text" for each option; `rotations` is "all" or a number. `shots` lines of `shots_file` are
  // shown first, with their letters. A chat unless `chat` is false.
  static std::unique_ptr<Task> read(TaskTable& table);

  const char* kind() const override { return kKind; }
  int64_t size() const override { return static_cast<int64_t>(items_.size()); }
  void check(const TaskSubject& subject) const override;
  // Notes: `answers`, how often questions were asked; of these `unparsed`, answers that name no
  // option and count as wrong, and `cut`, those that reached max_tokens; `position_bias` as
  // PositionCounts has it; `positions`, rows of {"letter", "gold", "chosen", "recall"}: the share
  // of answers whose right option is there, that chose it, and of the former those that did.
  TaskOutcome run(const TaskSubject& subject) const override;
  const std::vector<ChoiceLine>& items() const { return items_; }
  const Answering& answering() const { return answering_; }

  // An item's options from `shift` on, then those before it.
  struct Rotation {
    std::vector<std::string> options;
    int64_t gold;
  };
  std::vector<Rotation> rotations_of(const ChoiceLine& item) const;
  std::string question(const std::string& query, const std::vector<std::string>& options) const;

 private:
  std::vector<GenerationRequest> requests(const TaskSubject& subject) const;

  std::vector<ChoiceLine> items_;
  QuestionTemplate form_;
  int64_t rotations_;
  Answering answering_;
};

}  // namespace mambify
