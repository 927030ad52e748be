// How long answers are and how they ended, which tells much of a student before any judge does.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <span>

#include "eval/answers/answer_journal.h"
#include "eval/tasks/questions.h"

namespace mambify {

// {"questions", "turns", "tokens", "tokens_per_turn", "cut", "empty", "without_room"} over all, and
// under "categories" the same for each category.
nlohmann::json summarise_answers(std::span<const Question> questions,
                                 const std::map<int64_t, JournalEntry>& entries);

}  // namespace mambify
