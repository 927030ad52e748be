#include "eval/tasks/choice_lines.h"

#include "core/error.h"

namespace mambify {

ChoiceLine read_choice_line(const JsonReader& line) {
  ChoiceLine result{line.require<std::string>("query"),
                    line.require<std::vector<std::string>>("choices"), 0};
  if (result.choices.empty()) throw Error("{}: key 'choices' is empty", line.origin());
  result.gold = line.require_between("gold", 0, static_cast<int64_t>(result.choices.size()) - 1);
  return result;
}

}  // namespace mambify
