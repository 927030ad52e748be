#include "eval/report/report.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "eval/report/sections.h"
#include "html/page.h"

namespace mambify {
namespace {

constexpr std::array<std::string_view, 5> kKinds = {"perplexity", "agreement", "tasks", "needle",
                                                    "sensitivity"};
constexpr const char* kExpected =
    "expected what `mambify eval perplexity|agreement|tasks|needle|sensitivity --json` prints";

nlohmann::json read_or_tell_expected(const fs::path& file) {
  try {
    return read_json(file);
  } catch (const Error& error) {
    throw Error("{}; {}", error.what(), kExpected);
  }
}

std::string short_name(const std::string& path) {
  const fs::path normal = fs::path(path).lexically_normal();
  const fs::path folder = normal.has_filename() ? normal : normal.parent_path();
  const bool is_run = folder.filename() == "final" && folder.has_parent_path();
  const std::string name = (is_run ? folder.parent_path() : folder).filename().string();
  return name.empty() ? path : name;
}

}  // namespace

ModelNames::ModelNames(const std::vector<EvalResult>& results) {
  std::vector<std::string> models;
  for (const EvalResult& result : results) {
    const ResultReader reader(result);
    if (!reader.teacher().empty() && teachers_.insert(reader.teacher()).second) {
      paths_.push_back(reader.teacher());
    }
    models.push_back(reader.model());
  }
  for (const std::string& model : models) {
    if (!model.empty() && std::ranges::count(paths_, model) == 0) paths_.push_back(model);
  }
  std::map<std::string, int> uses;
  for (const std::string& path : paths_) ++uses[short_name(path)];
  for (const std::string& path : paths_) {
    const std::string name = short_name(path);
    names_[path] = uses[name] == 1 ? name : path;
  }
}

ResultReader::ResultReader(const EvalResult& result)
    : reader_(result.json, result.file),
      kind_(about().require<std::string>("kind")),
      model_(about().get<std::string>("model", "")),
      teacher_(about().get<std::string>("teacher", "")) {}

std::string ResultReader::data() const {
  return fs::path(about().get<std::string>("data", "")).filename().string();
}

std::optional<JsonReader> ResultReader::teacher_body() const {
  if (!reader_.has("teacher")) return std::nullopt;
  return reader_.object("teacher");
}

std::vector<JsonReader> objects_at(const JsonReader& reader, const std::string& key) {
  const auto found = reader.json().find(key);
  if (found == reader.json().end() || !found->is_array()) {
    throw Error("{}: key '{}' is no list of objects", reader.origin(), key);
  }
  std::vector<JsonReader> objects;
  for (const nlohmann::json& object : *found) {
    objects.emplace_back(object, fmt::format("{}: {}[{}]", reader.origin(), key, objects.size()));
  }
  return objects;
}

EvalResult read_eval_result(const fs::path& file) {
  EvalResult result{file.string(), read_or_tell_expected(file)};
  const nlohmann::json* about = nullptr;
  if (result.json.is_object() && result.json.contains("about")) about = &result.json["about"];
  if (about == nullptr || !about->is_object() || !about->contains("kind")) {
    throw Error("{}: no key 'about' that names a kind of result; {}", result.file, kExpected);
  }
  const nlohmann::json& kind = about->at("kind");
  if (!kind.is_string() || std::ranges::count(kKinds, kind.get<std::string>()) == 0) {
    throw Error("{}: a result of kind {} has no section in a report; {}", result.file, kind.dump(),
                kExpected);
  }
  return result;
}

std::string report_page(const std::vector<EvalResult>& results, std::string_view title) {
  const ModelNames names(results);
  return html_page(title, overview_section(results, names) + tasks_section(results, names) +
                              needle_section(results, names) + sensitivity_section(results, names) +
                              sources_section(results));
}

}  // namespace mambify
