// The questions of two benchmarks whose answers a judge reads.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/file.h"

namespace mambify {

struct Question {
  std::vector<std::string> turns;  // what the user says, an answer after each; at least one
  std::string category;            // MT-Bench's category, AlpacaEval's dataset
  nlohmann::json record;           // as it was read
};

// FastChat's question.jsonl: lines {"question_id", "category", "turns"}. limit: the first so many,
// 0 for all. Throws Error naming file, line and key, for a question_id that is there twice too.
std::vector<Question> read_mt_bench_questions(const fs::path& file, int64_t limit = 0);

// AlpacaEval's list: [{"instruction", "dataset"}, ...]; "input", where it is there and not empty,
// follows the instruction behind an empty line.
std::vector<Question> read_alpaca_instructions(const fs::path& file, int64_t limit = 0);

// The temperature that FastChat samples a category of MT-Bench at (fastchat/llm_judge/common.py,
// temperature_config): 0.7 for writing, roleplay and categories it does not know, 0.1 for stem and
// humanities, 0 for extraction, math, coding and reasoning.
double mt_bench_temperature(const std::string& category);

}  // namespace mambify
