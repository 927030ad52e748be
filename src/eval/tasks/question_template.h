// A template with named places, as tasks that have a model write have them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mambify {

class QuestionTemplate {
 public:
  // Each place ("{query}") stands in the text exactly once, or it is an Error that begins with the
  // origin.
  QuestionTemplate(std::string text, std::vector<std::string> places, const std::string& origin);

  // The text with a value for each place, in their order; white space at the end of values is
  // trimmed. What looks like a place inside a value stays as it is.
  std::string fill(const std::vector<std::string_view>& values) const;

 private:
  struct Part {
    std::string text;
    size_t place;  // the number of the place behind it
  };
  std::vector<Part> parts_;
  std::string end_;
};

}  // namespace mambify
