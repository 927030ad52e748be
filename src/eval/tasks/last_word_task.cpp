#include "eval/tasks/last_word_task.h"

#include "eval/json_lines.h"
#include "eval/tasks/likelihood.h"
#include "eval/tasks/white_space.h"

namespace mambify {

LastWordTask::LastWordTask(std::string name, std::vector<PairItem> items)
    : Task(std::move(name)), items_(std::move(items)) {}

std::unique_ptr<Task> LastWordTask::read(TaskTable& table) {
  const PairTemplate form(table.get<std::string>("template", "{context} {continuation}"),
                          "{context}", "{continuation}", table.origin());
  auto name = table.require<std::string>("name");
  std::vector<PairItem> items;
  for_each_json_line(table.require_path("file"), table.limit(), [&](const JsonReader& line) {
    auto word = line.require<std::string>("continuation");
    if (form.has_space()) word = std::string(trim_start(word));
    items.push_back(form.fill(line.require<std::string>("context"), {word}, 0, line.origin()));
  });
  return std::make_unique<LastWordTask>(std::move(name), std::move(items));
}

TaskOutcome LastWordTask::run(const TaskSubject& subject) const {
  std::vector<ScoredText> texts;
  for (const PairItem& item : items_) {
    texts.push_back(encode_pair(subject.tokenizer(), item.context, item.continuations.front(),
                                subject.model().config.max_positions));
  }
  const std::vector<Likelihood> likelihoods = score_texts(subject.model(), texts, name());

  TaskOutcome outcome;
  Metric acc{"acc", {}, 0};
  for (size_t i = 0; i < items_.size(); ++i) {
    acc.values.push_back(likelihoods[i].is_greedy ? 1 : 0);
    outcome.samples.push_back({{"context", items_[i].context},
                               {"continuation", items_[i].continuations.front()},
                               {"log_likelihood", likelihoods[i].log_likelihood},
                               {"acc", acc.values.back()}});
  }
  outcome.metrics = {std::move(acc)};
  return outcome;
}

}  // namespace mambify
