#include "eval/tasks/number_task.h"

#include <optional>
#include <utility>

#include "core/error.h"
#include "eval/json_lines.h"
#include "eval/tasks/extract_number.h"
#include "eval/tasks/question_template.h"
#include "eval/tasks/white_space.h"

namespace mambify {
namespace {

// A line in either form: what is asked, and the answer as an example shows it.
Shot read_line(const JsonReader& line) {
  if (line.has("question") || line.has("answer")) {
    return {line.require<std::string>("question"), line.require<std::string>("answer")};
  }
  Shot shot{line.require<std::string>("query"), ""};
  const bool is_number = line.has("gold") && line.json()["gold"].is_number();
  shot.answer = is_number ? line.json()["gold"].dump() : line.require<std::string>("gold");
  return shot;
}

std::string gold_of(const Shot& shot, const JsonReader& line) {
  std::string gold = normalise_number(shot.answer);
  if (gold.find_first_not_of("-0123456789.") != std::string::npos ||
      gold.find_first_of("0123456789") == std::string::npos) {
    throw Error(
        "{}: the answer is \"{}\", expected a number, or a text that ends in \"#### \" and "
        "a number",
        line.origin(), gold);
  }
  return gold;
}

nlohmann::json to_json(const std::optional<std::string>& text) {
  return text ? nlohmann::json(*text) : nlohmann::json(nullptr);
}

double is_right(const std::optional<std::string>& found, const std::string& gold) {
  return found && normalise_number(*found) == gold ? 1 : 0;
}

}  // namespace

NumberTask::NumberTask(std::string name, std::vector<NumberItem> items, Answering answering,
                       std::string marker)
    : Task(std::move(name)),
      items_(std::move(items)),
      answering_(std::move(answering)),
      marker_(std::move(marker)) {}

std::unique_ptr<Task> NumberTask::read(TaskTable& table) {
  const QuestionTemplate form(table.get<std::string>("template", "Question: {query}\nAnswer:"),
                              {"{query}"}, table.origin());
  auto name = table.require<std::string>("name");
  const bool chat = table.get("chat", false);
  std::vector<std::string> stop;
  if (!chat) stop.push_back("Question:");
  Answering answering = read_answering(table, {.chat = chat, .stop = stop});
  auto marker = table.get<std::string>("marker", "#### ");
  if (marker.empty()) throw Error("{}: key 'marker' is empty", table.origin());
  answering.shots = read_shots(table, [&](const JsonReader& line) {
    Shot shot = read_line(line);
    return Shot{form.fill({shot.question}), shot.answer};
  });
  std::vector<NumberItem> items;
  for_each_json_line(table.require_path("file"), table.limit(), [&](const JsonReader& line) {
    const Shot shot = read_line(line);
    items.push_back({form.fill({shot.question}), gold_of(shot, line)});
  });
  return std::make_unique<NumberTask>(std::move(name), std::move(items), std::move(answering),
                                      std::move(marker));
}

std::vector<GenerationRequest> NumberTask::requests(const TaskSubject& subject) const {
  std::vector<std::string> questions;
  for (const NumberItem& item : items_) questions.push_back(item.question);
  return make_requests(answering_, questions, subject, name());
}

void NumberTask::check(const TaskSubject& subject) const { requests(subject); }

TaskOutcome NumberTask::run(const TaskSubject& subject) const {
  const std::vector<GenerationResult> results =
      generate_answers(requests(subject), subject, name());
  TaskOutcome outcome;
  Metric strict{"strict_match", {}, 0}, flexible{"flexible_extract", {}, 0};
  int64_t cut = 0, without_marked = 0, without_any = 0;
  for (size_t i = 0; i < items_.size(); ++i) {
    const GenerationResult& result = results[i];
    const auto marked = marked_number(result.text, marker_), last = last_number(result.text);
    strict.values.push_back(is_right(marked, items_[i].gold));
    flexible.values.push_back(is_right(last, items_[i].gold));
    without_marked += marked ? 0 : 1;
    without_any += last ? 0 : 1;
    cut += result.finish_reason == FinishReason::length ? 1 : 0;
    outcome.samples.push_back({{"question", items_[i].question},
                               {"output", result.text},
                               {"gold", items_[i].gold},
                               {"strict", to_json(marked)},
                               {"flexible", to_json(last)},
                               {"strict_match", strict.values.back()},
                               {"flexible_extract", flexible.values.back()}});
  }
  outcome.metrics = {std::move(strict), std::move(flexible)};
  outcome.notes = {
      {"unparsed_strict", without_marked}, {"unparsed_flexible", without_any}, {"cut", cut}};
  return outcome;
}

}  // namespace mambify
