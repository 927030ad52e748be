// Benchmarks as users write them: a TOML list of tasks and JSON lines of their items.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/file.h"
#include "eval/tasks/task.h"

namespace mambify {

// [[task]] tables with `name`, `kind`, `file` (relative to the TOML's folder) and what the kind
// takes beside them, which stands in the header of the kind. limit: items of each task, 0 for all.
// Throws Error naming file and key or line.
std::vector<std::unique_ptr<Task>> read_tasks(const fs::path& file, int64_t limit = 0);

}  // namespace mambify
