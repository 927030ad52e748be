#include "eval/tasks/question_template.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "eval/tasks/white_space.h"

namespace mambify {

QuestionTemplate::QuestionTemplate(std::string text, std::vector<std::string> places,
                                   const std::string& origin) {
  std::vector<std::pair<size_t, size_t>> found;  // where, which
  for (size_t place = 0; place < places.size(); ++place) {
    const size_t at = text.find(places[place]);
    if (at == std::string::npos || text.find(places[place], at + 1) != std::string::npos) {
      throw Error("{}: key 'template' is \"{}\", expected one that has {} once", origin, text,
                  places[place]);
    }
    found.emplace_back(at, place);
  }
  std::ranges::sort(found);
  size_t start = 0;
  for (const auto& [at, place] : found) {
    parts_.push_back({text.substr(start, at - start), place});
    start = at + places[place].size();
  }
  end_ = text.substr(start);
}

std::string QuestionTemplate::fill(const std::vector<std::string_view>& values) const {
  std::string text;
  for (const Part& part : parts_) text += part.text + std::string(trim_end(values[part.place]));
  return text + end_;
}

}  // namespace mambify
