// Benchmarks as users write them: a TOML list of tasks and JSON lines of their items.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace mambify {

enum class TaskKind {
  choice,     // lines {"query", "choices", "gold"}: the likeliest choice must be the gold one
  last_word,  // lines {"context", "continuation"}: the continuation must be the greedy choice
};

// A context and what may follow it, as lm-eval pairs them: white space between the two belongs to
// the continuation.
struct TaskItem {
  std::string context;
  std::vector<std::string> continuations;  // one for last_word
  std::vector<int64_t> characters;         // of each choice itself, in Unicode code points
  int64_t gold = 0;
};

struct Task {
  std::string name;
  TaskKind kind = TaskKind::choice;
  std::vector<TaskItem> items;
  double chance = 0;  // what guessing scores: the mean of 1 / choices; 0 for last_word
};

// [[task]] tables with `name`, `file` (relative to the TOML's folder), `kind` ("choice" or
// "last_word") and `template`, which ends in "{choice}" or "{continuation}". The default templates
// are "{query}\nAnswer: {choice}" and "{context} {continuation}". White space at the end of a query
// or context is trimmed. limit: items of each task, 0 for all. Throws Error naming file and key or
// line.
std::vector<Task> read_tasks(const fs::path& file, int64_t limit = 0);

}  // namespace mambify
