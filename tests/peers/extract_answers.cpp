// extract_answers: reads JSON lines {"text": ...} and writes for each what the tasks by generation
// read from it: {"strict", "flexible", "compared", "gold"}, null where there is no number.
#include <cstdio>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "eval/tasks/extract_number.h"

namespace {

nlohmann::json extract(const std::string& text) {
  const auto strict = mambify::marked_number(text, "#### ");
  const auto flexible = mambify::last_number(text);
  nlohmann::json result = {{"strict", nullptr}, {"flexible", nullptr}, {"compared", nullptr}};
  if (strict) result["strict"] = *strict;
  if (flexible) {
    result["flexible"] = *flexible;
    result["compared"] = mambify::normalise_number(*flexible);
  }
  result["gold"] = mambify::normalise_number(text);
  return result;
}

}  // namespace

int main() {
  try {
    for (std::string line; std::getline(std::cin, line);) {
      const auto text = nlohmann::json::parse(line).at("text").get<std::string>();
      std::cout << extract(text).dump(-1, ' ', true) << "\n";
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
