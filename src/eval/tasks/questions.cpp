#include "eval/tasks/questions.h"

#include <map>
#include <set>

#include "core/error.h"
#include "eval/json_lines.h"
#include "io/json_reader.h"

namespace mambify {

std::vector<Question> read_mt_bench_questions(const fs::path& file, int64_t limit) {
  std::vector<Question> questions;
  std::set<int64_t> ids;
  for_each_json_line(file, limit, [&](const JsonReader& line) {
    Question question{line.require<std::vector<std::string>>("turns"),
                      line.require<std::string>("category"), line.json()};
    if (question.turns.empty()) throw Error("{}: key 'turns' is empty", line.origin());
    if (const auto id = line.require<int64_t>("question_id"); !ids.insert(id).second) {
      throw Error("{}: question_id {} is there twice", line.origin(), id);
    }
    questions.push_back(std::move(question));
  });
  return questions;
}

std::vector<Question> read_alpaca_instructions(const fs::path& file, int64_t limit) {
  const nlohmann::json list = parse_json(read_text_file(file), file.string());
  if (!list.is_array() || list.empty()) {
    throw Error("{}: expected a JSON list of objects with an \"instruction\"", file.string());
  }
  std::vector<Question> questions;
  for (const nlohmann::json& element : list) {
    if (limit > 0 && std::ssize(questions) == limit) break;
    const JsonReader reader(element,
                            fmt::format("{}: element {}", file.string(), questions.size() + 1));
    auto text = reader.require<std::string>("instruction");
    if (const auto input = reader.get<std::string>("input", ""); !input.empty()) {
      text += "\n\n" + input;
    }
    questions.push_back({{std::move(text)}, reader.get<std::string>("dataset", ""), element});
  }
  return questions;
}

double mt_bench_temperature(const std::string& category) {
  static const std::map<std::string, double> temperatures = {{"stem", 0.1},     {"humanities", 0.1},
                                                             {"extraction", 0}, {"math", 0},
                                                             {"coding", 0},     {"reasoning", 0}};
  const auto found = temperatures.find(category);
  return found == temperatures.end() ? 0.7 : found->second;
}

}  // namespace mambify
