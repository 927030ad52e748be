#include "eval/tasks/task_file.h"

#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <map>
#include <string>

#include "core/error.h"
#include "eval/tasks/choice_task.h"
#include "eval/tasks/last_word_task.h"
#include "eval/tasks/number_task.h"
#include "eval/tasks/task_table.h"
#include "eval/tasks/worded_choice_task.h"

namespace mambify {
namespace {

using nlohmann::json;
using ReadTask = std::unique_ptr<Task> (*)(TaskTable&);

const std::map<std::string, ReadTask>& kinds() {
  static const std::map<std::string, ReadTask> kinds = {
      {ChoiceTask::kKind, ChoiceTask::read},
      {LastWordTask::kKind, LastWordTask::read},
      {NumberTask::kKind, NumberTask::read},
      {WordedChoiceTask::kKind, WordedChoiceTask::read},
  };
  return kinds;
}

json to_json(const toml::node& node, const std::string& origin) {
  if (const auto text = node.value_exact<std::string>()) return *text;
  if (const auto number = node.value_exact<int64_t>()) return *number;
  if (const auto number = node.value_exact<double>()) return *number;
  if (const auto flag = node.value_exact<bool>()) return *flag;
  if (const toml::array* list = node.as_array()) {
    json values = json::array();
    for (const toml::node& element : *list) values.push_back(to_json(element, origin));
    return values;
  }
  throw Error("{}: found a table or a date, expected strings, numbers, true or false, and lists",
              origin);
}

json to_json(const toml::table& table, const std::string& origin) {
  json values = json::object();
  for (const auto& [key, value] : table) {
    values[std::string(key.str())] = to_json(value, fmt::format("{}: key '{}'", origin, key.str()));
  }
  return values;
}

std::unique_ptr<Task> read_task(TaskTable& table) {
  const auto kind = table.require<std::string>("kind");
  const auto found = kinds().find(kind);
  if (found == kinds().end()) {
    std::vector<std::string> names;
    for (const auto& [name, read] : kinds()) names.push_back(name);
    throw Error("{}: key 'kind' is \"{}\", expected one of {}", table.origin(), kind,
                fmt::join(names, ", "));
  }
  std::unique_ptr<Task> task = found->second(table);
  table.check_all_known();
  return task;
}

}  // namespace

std::vector<std::unique_ptr<Task>> read_tasks(const fs::path& file, int64_t limit) {
  toml::table root;
  try {
    root = toml::parse(read_text_file(file), file.string());
  } catch (const toml::parse_error& error) {
    throw Error("{}:{}: {}", file.string(), error.source().begin.line, error.description());
  }
  for (const auto& [key, value] : root) {
    if (key.str() != "task") {
      throw Error("{}: unknown key '{}', expected [[task]] tables", file.string(), key.str());
    }
  }
  const toml::array* list = root["task"].as_array();
  if (list == nullptr || list->empty()) {
    throw Error("{}: found no [[task]] table", file.string());
  }
  std::vector<std::unique_ptr<Task>> tasks;
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string origin = fmt::format("{}: task {}", file.string(), i + 1);
    const toml::table* table = list->get(i)->as_table();
    if (table == nullptr) throw Error("{}: expected a table", origin);
    TaskTable values(to_json(*table, origin), origin, file.parent_path(), limit);
    tasks.push_back(read_task(values));
  }
  return tasks;
}

}  // namespace mambify
