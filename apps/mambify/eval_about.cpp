#include <fstream>
#include <string>

#include "eval_verbs.h"

namespace mambify {
namespace {

// The arguments this process was started with.
nlohmann::json command_line() {
  std::ifstream stream("/proc/self/cmdline", std::ios::binary);
  nlohmann::json arguments = nlohmann::json::array();
  for (std::string argument; std::getline(stream, argument, '\0');) arguments.push_back(argument);
  return arguments;
}

}  // namespace

nlohmann::json about_result(const std::string& kind, const CommonOptions& common,
                            const std::string& model, const std::string& teacher,
                            const std::string& data) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::json(nullptr) : nlohmann::json(text);
  };
  return {{"kind", kind},          {"model", or_null(model)},   {"teacher", or_null(teacher)},
          {"data", or_null(data)}, {"device", common.device},   {"dtype", common.dtype},
          {"seed", common.seed},   {"command", command_line()}, {"version", MAMBIFY_VERSION}};
}

}  // namespace mambify
