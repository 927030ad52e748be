#include "eval/tasks/task_table.h"

#include <fmt/ranges.h>

#include <utility>

#include "core/error.h"

namespace mambify {

TaskTable::TaskTable(nlohmann::json table, std::string origin, fs::path folder, int64_t limit)
    : table_(std::move(table)),
      origin_(std::move(origin)),
      folder_(std::move(folder)),
      limit_(limit),
      reader_(table_, origin_) {}

bool TaskTable::has(const std::string& key) {
  known_.insert(key);
  return reader_.has(key);
}

int64_t TaskTable::get_between(const std::string& key, int64_t fallback, int64_t low,
                               int64_t high) {
  return has(key) ? reader_.require_between(key, low, high) : fallback;
}

void TaskTable::check_all_known() const {
  for (const auto& [key, value] : table_.items()) {
    if (known_.contains(key)) continue;
    throw Error("{}: unknown key '{}', expected one of {}", origin_, key, fmt::join(known_, ", "));
  }
}

}  // namespace mambify
