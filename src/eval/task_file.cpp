#include "eval/task_file.h"

#include <toml++/toml.h>

#include <algorithm>
#include <initializer_list>
#include <optional>

#include "core/error.h"
#include "io/json_reader.h"

namespace mambify {
namespace {

constexpr std::string_view kWhiteSpace = " \t\n\v\f\r";

std::string_view trim_end(std::string_view text) {
  const size_t last = text.find_last_not_of(kWhiteSpace);
  return last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
}

std::string_view trim_start(std::string_view text) {
  const size_t first = text.find_first_not_of(kWhiteSpace);
  return first == std::string_view::npos ? std::string_view() : text.substr(first);
}

int64_t count_characters(std::string_view utf8) {
  return std::count_if(utf8.begin(), utf8.end(),
                       [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
}

// What one kind of task calls its parts.
struct Vocabulary {
  const char* context;       // the key and placeholder of what is given
  const char* continuation;  // the placeholder of what is scored
  const char* default_template;
};

constexpr Vocabulary kChoice = {"query", "{choice}", "{query}\nAnswer: {choice}"};
constexpr Vocabulary kLastWord = {"context", "{continuation}", "{context} {continuation}"};

// A template cut into what stands around the context; white space before the continuation is kept
// apart because it belongs to the continuation.
struct Template {
  std::string before, after, space;
};

Template parse_template(const std::string& text, const Vocabulary& words,
                        const std::string& origin) {
  const std::string placeholder = fmt::format("{{{}}}", words.context);
  const size_t context = text.find(placeholder);
  if (!text.ends_with(words.continuation) || context == std::string::npos) {
    throw Error("{}: key 'template' is \"{}\", expected one that has {} and ends in {}", origin,
                text, placeholder, words.continuation);
  }
  const size_t start = context + placeholder.size();
  const std::string_view between = std::string_view(text).substr(
      start, text.size() - std::string_view(words.continuation).size() - start);
  const std::string_view after = trim_end(between);
  return {text.substr(0, context), std::string(after), std::string(between.substr(after.size()))};
}

TaskItem make_item(const Template& form, std::string_view given,
                   const std::vector<std::string>& choices, int64_t gold) {
  TaskItem item;
  item.context = form.before + std::string(trim_end(given)) + form.after;
  for (const std::string& choice : choices) {
    item.continuations.push_back(form.space + choice);
    item.characters.push_back(count_characters(choice));
  }
  item.gold = gold;
  return item;
}

TaskItem read_item(const JsonReader& line, TaskKind kind, const Template& form) {
  if (kind == TaskKind::last_word) {
    const auto word = line.require<std::string>("continuation");
    return make_item(form, line.require<std::string>("context"),
                     {form.space.empty() ? word : std::string(trim_start(word))}, 0);
  }
  const auto choices = line.require<std::vector<std::string>>("choices");
  if (choices.empty()) throw Error("{}: key 'choices' is empty", line.origin());
  const auto last = static_cast<int64_t>(choices.size()) - 1;
  return make_item(form, line.require<std::string>("query"), choices,
                   line.require_between("gold", 0, last));
}

void read_items(Task& task, const fs::path& file, const Template& form, int64_t limit) {
  const std::string text = read_text_file(file);
  std::string_view rest = text;
  for (int64_t number = 1; !rest.empty(); ++number) {
    if (limit > 0 && static_cast<int64_t>(task.items.size()) == limit) break;
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (trim_end(line).empty()) continue;
    const std::string origin = fmt::format("{}:{}", file.string(), number);
    const nlohmann::json json = parse_json(line, origin);
    task.items.push_back(read_item(JsonReader(json, origin), task.kind, form));
    const TaskItem& item = task.items.back();
    if (std::ranges::count(item.characters, 0) > 0) throw Error("{}: a choice is empty", origin);
    if (task.kind == TaskKind::choice) {
      task.chance += 1 / static_cast<double>(item.continuations.size());
    }
  }
  if (task.items.empty()) throw Error("{}: no item", file.string());
  task.chance /= static_cast<double>(task.items.size());
}

std::string require_string(const toml::table& table, const char* key, const std::string& origin) {
  const auto value = table[key].value_exact<std::string>();
  if (!value) throw Error("{}: key '{}' is missing or no string", origin, key);
  return *value;
}

Task read_task(const toml::table& table, const std::string& origin, const fs::path& folder,
               int64_t limit) {
  for (const auto& [key, value] : table) {
    const std::string_view name = key.str();
    if (name != "name" && name != "file" && name != "kind" && name != "template") {
      throw Error("{}: unknown key '{}', expected name, file, kind or template", origin, name);
    }
  }
  Task task;
  task.name = require_string(table, "name", origin);
  const std::string kind = require_string(table, "kind", origin);
  if (kind != "choice" && kind != "last_word") {
    throw Error("{}: key 'kind' is \"{}\", expected choice or last_word", origin, kind);
  }
  task.kind = kind == "choice" ? TaskKind::choice : TaskKind::last_word;
  const Vocabulary& words = task.kind == TaskKind::choice ? kChoice : kLastWord;
  const std::string form = table.contains("template") ? require_string(table, "template", origin)
                                                      : words.default_template;
  read_items(task, folder / require_string(table, "file", origin),
             parse_template(form, words, origin), limit);
  return task;
}

}  // namespace

std::vector<Task> read_tasks(const fs::path& file, int64_t limit) {
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
  std::vector<Task> tasks;
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string origin = fmt::format("{}: task {}", file.string(), i + 1);
    const toml::table* table = list->get(i)->as_table();
    if (table == nullptr) throw Error("{}: expected a table", origin);
    tasks.push_back(read_task(*table, origin, file.parent_path(), limit));
  }
  return tasks;
}

}  // namespace mambify
