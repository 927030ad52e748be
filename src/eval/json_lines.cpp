#include "eval/json_lines.h"

#include "core/error.h"
#include "data/json_lines.h"

namespace mambify {

void for_each_json_line(const fs::path& file, int64_t limit,
                        const std::function<void(const JsonReader& line)>& visit) {
  int64_t visited = 0;
  for_each_line(file, [&](std::string_view line, const std::string& origin) {
    if (limit != 0 && visited == limit) return;
    const nlohmann::json json = parse_json(line, origin);
    visit(JsonReader(json, origin));
    ++visited;
  });
  if (visited == 0) throw Error("{}: found no line in this file", file.string());
}

}  // namespace mambify
