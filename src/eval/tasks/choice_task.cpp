#include "eval/tasks/choice_task.h"

#include <algorithm>

#include "eval/json_lines.h"
#include "eval/tasks/choice_lines.h"
#include "eval/tasks/likelihood.h"

namespace mambify {
namespace {

// The first of equal ones.
int64_t best(const std::vector<double>& scores) {
  return std::max_element(scores.begin(), scores.end()) - scores.begin();
}

}  // namespace

ChoiceTask::ChoiceTask(std::string name, std::vector<PairItem> items)
    : Task(std::move(name)), items_(std::move(items)) {}

std::unique_ptr<Task> ChoiceTask::read(TaskTable& table) {
  const PairTemplate form(table.get<std::string>("template", "{query}\nAnswer: {choice}"),
                          "{query}", "{choice}", table.origin());
  auto name = table.require<std::string>("name");
  std::vector<PairItem> items;
  for_each_json_line(table.require_path("file"), table.limit(), [&](const JsonReader& line) {
    const ChoiceLine given = read_choice_line(line);
    items.push_back(form.fill(given.query, given.choices, given.gold, line.origin()));
  });
  return std::make_unique<ChoiceTask>(std::move(name), std::move(items));
}

TaskOutcome ChoiceTask::run(const TaskSubject& subject) const {
  std::vector<ScoredText> texts;
  for (const PairItem& item : items_) {
    for (const std::string& continuation : item.continuations) {
      texts.push_back(encode_pair(subject.tokenizer(), item.context, continuation,
                                  subject.model().config.max_positions));
    }
  }
  const std::vector<Likelihood> likelihoods = score_texts(subject.model(), texts, name());

  TaskOutcome outcome;
  Metric acc{"acc", {}, 0}, acc_norm{"acc_norm", {}, 0};
  auto next = likelihoods.begin();
  for (const PairItem& item : items_) {
    std::vector<double> totals, per_character;
    for (const int64_t characters : item.characters) {
      totals.push_back(next->log_likelihood);
      per_character.push_back(next->log_likelihood / static_cast<double>(characters));
      ++next;
    }
    acc.values.push_back(best(totals) == item.gold ? 1 : 0);
    acc_norm.values.push_back(best(per_character) == item.gold ? 1 : 0);
    acc.chance += 1 / static_cast<double>(item.characters.size() * items_.size());
    outcome.samples.push_back({{"context", item.context},
                               {"choices", item.continuations},
                               {"log_likelihoods", totals},
                               {"gold", item.gold},
                               {"acc", acc.values.back()},
                               {"acc_norm", acc_norm.values.back()}});
  }
  acc_norm.chance = acc.chance;
  outcome.metrics = {std::move(acc), std::move(acc_norm)};
  return outcome;
}

}  // namespace mambify
