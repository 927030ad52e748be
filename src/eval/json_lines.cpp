#include "eval/json_lines.h"

#include "core/error.h"

namespace mambify {

void for_each_json_line(const fs::path& file, int64_t limit,
                        const std::function<void(const JsonReader& line)>& visit) {
  const std::string text = read_text_file(file);
  std::string_view rest = text;
  int64_t visited = 0;
  for (int64_t number = 1; !rest.empty() && (limit == 0 || visited < limit); ++number) {
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (line.find_first_not_of(" \t\r\v\f") == std::string_view::npos) continue;
    const std::string origin = fmt::format("{}:{}", file.string(), number);
    const nlohmann::json json = parse_json(line, origin);
    visit(JsonReader(json, origin));
    ++visited;
  }
  if (visited == 0) throw Error("{}: found no line in this file", file.string());
}

}  // namespace mambify
