#include "eval/tasks/worded_choice_task.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "eval/json_lines.h"
#include "eval/tasks/extract_choice.h"
#include "eval/tasks/position_bias.h"
#include "eval/tasks/white_space.h"

namespace mambify {
namespace {

using nlohmann::json;

constexpr const char* kChatTemplate =
    "{query}\n\n{options}\n\nAnswer with the letter of the right option.";
constexpr const char* kPlainTemplate = "{query}\n{options}\nAnswer:";

std::string lettered(const std::vector<std::string>& options) {
  std::string lines;
  for (size_t i = 0; i < options.size(); ++i) {
    lines += fmt::format("{}{}. {}", i == 0 ? "" : "\n", option_letter(static_cast<int64_t>(i)),
                         trim(options[i]));
  }
  return lines;
}

ChoiceLine read_line(const JsonReader& line) {
  ChoiceLine item = read_choice_line(line);
  if (std::ssize(item.choices) > kMostOptions) {
    throw Error("{}: key 'choices' has {} options, expected at most {}", line.origin(),
                item.choices.size(), kMostOptions);
  }
  for (const std::string& choice : item.choices) {
    if (trim(choice).empty()) throw Error("{}: a choice is empty", line.origin());
  }
  return item;
}

int64_t read_rotations(TaskTable& table) {
  if (!table.has("rotations")) return 0;
  // A name or a number: what is no string must be an integer.
  if (table.is_string("rotations")) {
    const auto name = table.require<std::string>("rotations");
    if (name == "all") return 0;
    throw Error("{}: key 'rotations' is \"{}\", expected \"all\" or a number", table.origin(),
                name);
  }
  return table.get_between("rotations", 0, 1, kMostOptions);
}

json describe(const PositionCounts& counts, int64_t asked) {
  json rows = json::array();
  for (size_t i = 0; i < counts.gold.size(); ++i) {
    const auto share = [](int64_t part, int64_t all) {
      return all == 0 ? json(nullptr) : json(static_cast<double>(part) / static_cast<double>(all));
    };
    rows.push_back({{"letter", std::string(1, option_letter(static_cast<int64_t>(i)))},
                    {"gold", share(counts.gold[i], asked)},
                    {"chosen", share(counts.chosen[i], asked)},
                    {"recall", share(counts.right[i], counts.gold[i])}});
  }
  return rows;
}

}  // namespace

WordedChoiceTask::WordedChoiceTask(std::string name, std::vector<ChoiceLine> items,
                                   QuestionTemplate form, int64_t rotations, Answering answering)
    : Task(std::move(name)),
      items_(std::move(items)),
      form_(std::move(form)),
      rotations_(rotations),
      answering_(std::move(answering)) {}

std::unique_ptr<Task> WordedChoiceTask::read(TaskTable& table) {
  const bool chat = table.get("chat", true);
  const QuestionTemplate form(
      table.get<std::string>("template", chat ? kChatTemplate : kPlainTemplate),
      {"{query}", "{options}"}, table.origin());
  auto name = table.require<std::string>("name");
  const int64_t rotations = read_rotations(table);
  std::vector<std::string> stop;
  if (!chat) stop.push_back("\n\n");
  Answering answering =
      read_answering(table, {.chat = chat, .max_tokens = 64, .stop = std::move(stop)});
  answering.shots = read_shots(table, [&](const JsonReader& line) {
    const ChoiceLine item = read_line(line);
    return Shot{form.fill({item.query, lettered(item.choices)}),
                std::string(1, option_letter(item.gold))};
  });
  std::vector<ChoiceLine> items;
  for_each_json_line(table.require_path("file"), table.limit(),
                     [&](const JsonReader& line) { items.push_back(read_line(line)); });
  return std::make_unique<WordedChoiceTask>(std::move(name), std::move(items), form, rotations,
                                            std::move(answering));
}

std::vector<WordedChoiceTask::Rotation> WordedChoiceTask::rotations_of(
    const ChoiceLine& item) const {
  const auto options = std::ssize(item.choices);
  const int64_t wanted = rotations_ == 0 ? options : std::min<int64_t>(rotations_, options);
  std::vector<Rotation> rotations;
  for (int64_t i = 0; i < wanted; ++i) {
    const int64_t shift = i * options / wanted;
    Rotation rotation{item.choices, (item.gold - shift + options) % options};
    std::rotate(rotation.options.begin(), rotation.options.begin() + shift, rotation.options.end());
    rotations.push_back(std::move(rotation));
  }
  return rotations;
}

std::string WordedChoiceTask::question(const std::string& query,
                                       const std::vector<std::string>& options) const {
  return form_.fill({query, lettered(options)});
}

std::vector<GenerationRequest> WordedChoiceTask::requests(const TaskSubject& subject) const {
  std::vector<std::string> questions;
  for (const ChoiceLine& item : items_) {
    for (const Rotation& rotation : rotations_of(item)) {
      questions.push_back(question(item.query, rotation.options));
    }
  }
  return make_requests(answering_, questions, subject, name());
}

void WordedChoiceTask::check(const TaskSubject& subject) const { requests(subject); }

TaskOutcome WordedChoiceTask::run(const TaskSubject& subject) const {
  const std::vector<GenerationResult> results =
      generate_answers(requests(subject), subject, name());
  TaskOutcome outcome;
  Metric acc{"acc", {}, 0}, consistent{"consistent_acc", {}, 0};
  PositionCounts positions;
  int64_t unparsed = 0, cut = 0;
  auto result = results.begin();
  for (const ChoiceLine& item : items_) {
    const std::vector<Rotation> rotations = rotations_of(item);
    const auto asked = static_cast<double>(rotations.size());
    double right = 0;
    json texts = json::array(), chosen_options = json::array();
    for (const Rotation& rotation : rotations) {
      const auto chosen = chosen_option(result->text, rotation.options);
      positions.add(rotation.gold, chosen.value_or(-1));
      right += chosen == rotation.gold ? 1 : 0;
      unparsed += chosen ? 0 : 1;
      cut += result->finish_reason == FinishReason::length ? 1 : 0;
      texts.push_back(result->text);
      chosen_options.push_back(chosen ? json(rotation.options[*chosen]) : json(nullptr));
      ++result;
    }
    acc.values.push_back(right / asked);
    consistent.values.push_back(right == asked ? 1 : 0);
    const double chance = 1 / static_cast<double>(item.choices.size());
    acc.chance += chance / static_cast<double>(items_.size());
    consistent.chance += std::pow(chance, asked) / static_cast<double>(items_.size());
    outcome.samples.push_back({{"question", question(item.query, rotations.front().options)},
                               {"gold", item.choices[item.gold]},
                               {"outputs", std::move(texts)},
                               {"chosen", std::move(chosen_options)},
                               {"acc", acc.values.back()},
                               {"consistent_acc", consistent.values.back()}});
  }
  outcome.metrics = {std::move(acc), std::move(consistent)};
  const auto asked = static_cast<int64_t>(results.size());
  outcome.notes = {{"answers", asked},
                   {"unparsed", unparsed},
                   {"cut", cut},
                   {"position_bias", positions.recall_deviation()},
                   {"positions", describe(positions, asked)}};
  return outcome;
}

}  // namespace mambify
