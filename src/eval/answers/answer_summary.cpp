#include "eval/answers/answer_summary.h"

#include <algorithm>
#include <string>

namespace mambify {
namespace {

struct Totals {
  int64_t questions = 0, turns = 0, tokens = 0, cut = 0, empty = 0, without_room = 0;

  void add(const Answer& answer) {
    ++questions;
    turns += std::ssize(answer.turns);
    for (const int64_t count : answer.tokens) tokens += count;
    cut += answer.cut;
    empty += std::ranges::count(answer.turns, "");
    without_room += answer.without_room;
  }
  nlohmann::json describe() const {
    return {{"questions", questions},
            {"turns", turns},
            {"tokens", tokens},
            {"tokens_per_turn", static_cast<double>(tokens) / static_cast<double>(turns)},
            {"cut", cut},
            {"empty", empty},
            {"without_room", without_room}};
  }
};

}  // namespace

nlohmann::json summarise_answers(std::span<const Question> questions,
                                 const std::map<int64_t, JournalEntry>& entries) {
  Totals all;
  std::map<std::string, Totals> by_category;
  for (const auto& [number, entry] : entries) {
    all.add(entry.answer);
    by_category[questions[number].category].add(entry.answer);
  }
  nlohmann::json result = all.describe();
  result["categories"] = nlohmann::json::object();
  for (const auto& [name, totals] : by_category) result["categories"][name] = totals.describe();
  return result;
}

}  // namespace mambify
