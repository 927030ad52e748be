#include "data/json_lines.h"

#include <fmt/format.h>

#include <algorithm>

namespace mambify {

void for_each_line(const fs::path& file,
                   const std::function<void(std::string_view, const std::string&)>& visit) {
  const auto mapped = MappedFile::open(file);
  const std::string_view all(reinterpret_cast<const char*>(mapped->bytes().data()),
                             mapped->bytes().size());
  int64_t number = 1;
  for (size_t begin = 0; begin < all.size(); ++number) {
    const size_t end = std::min(all.find('\n', begin), all.size());
    const std::string_view line = all.substr(begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    visit(line, fmt::format("{}:{}", file.string(), number));
  }
}

}  // namespace mambify
