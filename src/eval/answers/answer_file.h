// Answers in the formats that two judges read.
#pragma once

#include <map>
#include <span>
#include <string>

#include "eval/answers/answer_journal.h"
#include "eval/tasks/questions.h"

namespace mambify {

// FastChat's model_answer/MODEL.jsonl, as fastchat/llm_judge/gen_model_answer.py writes it: lines
// {"question_id", "answer_id", "model_id", "choices": [{"index", "turns"}], "tstamp"} in the order
// of question_id. Each question has an entry by its place.
std::string mt_bench_answers(std::span<const Question> questions,
                             const std::map<int64_t, JournalEntry>& entries,
                             const std::string& model_id);

// AlpacaEval's model_outputs.json: a list in the order of the questions of what their file says of
// each, with the answer as "output" and the model as "generator".
std::string alpaca_answers(std::span<const Question> questions,
                           const std::map<int64_t, JournalEntry>& entries,
                           const std::string& model_id);

}  // namespace mambify
