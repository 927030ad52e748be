// Where the numbers come from: each file with the command that measured it.
#include <fmt/format.h>

#include "eval/report/sections.h"
#include "html/page.h"

namespace mambify {
namespace {

// As a shell takes it.
std::string quoted(const std::string& argument) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=,:+";
  if (!argument.empty() && argument.find_first_not_of(kPlain) == std::string::npos) return argument;
  std::string text = "'";
  for (const char c : argument) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

}  // namespace

std::string sources_section(const std::vector<EvalResult>& results) {
  std::string text = "<h2>Commands</h2>\n";
  for (const EvalResult& one : results) {
    const JsonReader about = ResultReader(one).about();
    std::string command;
    for (const std::string& argument : about.get<std::vector<std::string>>("command", {})) {
      command += (command.empty() ? "" : " ") + quoted(argument);
    }
    text += fmt::format("<p>{}: mambify {}, {}, {}</p>\n<pre>{}</pre>\n", escaped(one.file),
                        escaped(about.get<std::string>("version", "of an unknown version")),
                        escaped(about.get<std::string>("device", "unknown device")),
                        escaped(about.get<std::string>("dtype", "unknown type")), escaped(command));
  }
  return text;
}

}  // namespace mambify
