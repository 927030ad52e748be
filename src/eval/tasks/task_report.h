// Results of a task as JSON: a model's alone, or beside its teacher's on the same items.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

#include "eval/tasks/task.h"

namespace mambify {

// {"name", "kind", "n", "chance", "metrics": [names], NAME, NAME_stderr, NAME_chance for each
// metric, the notes of its kind}; `chance` is that of the first metric. With a teacher's outcome
// also "teacher", the same for it, and "paired": {NAME: {"difference", "difference_stderr",
// "difference_interval", "kept", "kept_interval"}}. seed: of the bootstrap.
nlohmann::json to_json(const Task& task, const TaskOutcome& model, const TaskOutcome* teacher,
                       uint64_t seed);

}  // namespace mambify
