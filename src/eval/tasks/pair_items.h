// Items of a context and what may follow it, as tasks by likelihood have them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mambify {

// As lm-evaluation-harness pairs them: white space between the two belongs to the continuation.
struct PairItem {
  std::string context;
  std::vector<std::string> continuations;
  std::vector<int64_t> characters;  // of each choice itself, in Unicode code points
  int64_t gold = 0;
};

// A template cut into what stands around the context, and the white space before the continuation.
class PairTemplate {
 public:
  // text: has `context` ("{query}") and ends in `continuation` ("{choice}"), or an Error that
  // begins with the origin.
  PairTemplate(std::string_view text, std::string_view context, std::string_view continuation,
               const std::string& origin);

  // White space at the end of what is given is trimmed. Throws Error for an empty choice.
  PairItem fill(std::string_view given, const std::vector<std::string>& choices, int64_t gold,
                const std::string& origin) const;
  // White space stands in front of the continuation.
  bool has_space() const { return !space_.empty(); }

 private:
  std::string before_, after_, space_;
};

}  // namespace mambify
