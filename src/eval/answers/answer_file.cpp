#include "eval/answers/answer_file.h"

#include <fmt/format.h>

namespace mambify {
namespace {

using nlohmann::json;

std::string text_of(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

}  // namespace

std::string mt_bench_answers(std::span<const Question> questions,
                             const std::map<int64_t, JournalEntry>& entries,
                             const std::string& model_id) {
  std::map<int64_t, std::string> lines;
  for (size_t i = 0; i < questions.size(); ++i) {
    const auto id = questions[i].record["question_id"].get<int64_t>();
    const JournalEntry& entry = entries.at(static_cast<int64_t>(i));
    const json choice = {{"index", 0}, {"turns", entry.answer.turns}};
    lines[id] = text_of({{"question_id", id},
                         {"answer_id", fmt::format("{}-{}", model_id, id)},
                         {"model_id", model_id},
                         {"choices", json::array({choice})},
                         {"tstamp", entry.time}},
                        -1);
  }
  std::string text;
  for (const auto& [id, line] : lines) text += line + "\n";
  return text;
}

std::string alpaca_answers(std::span<const Question> questions,
                           const std::map<int64_t, JournalEntry>& entries,
                           const std::string& model_id) {
  json list = json::array();
  for (size_t i = 0; i < questions.size(); ++i) {
    json record = questions[i].record;
    record["output"] = entries.at(static_cast<int64_t>(i)).answer.turns.front();
    record["generator"] = model_id;
    list.push_back(std::move(record));
  }
  return text_of(list, 2) + "\n";
}

}  // namespace mambify
