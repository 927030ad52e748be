// Runs the program as a user would: a command line in, exit code, stdout and stderr out.
#pragma once

#include <fmt/format.h>
#include <sys/wait.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/file.h"
#include "testing.h"

namespace mambify::testing {

struct Outcome {
  int exit_code;
  std::string out, err;

  // stdout as the one JSON object that --json promises; throws otherwise.
  nlohmann::json json() const { return nlohmann::json::parse(out); }
};

inline std::string quoted(const std::string& argument) {
  std::string result;
  for (char c : argument) {
    if (c == '\'') {
      result += "'\\''";
    } else {
      result += c;
    }
  }
  return fmt::format("'{}'", result);
}

// `before`: shell text in front of the program ("ulimit -f 1;"); input: what it reads on stdin.
inline Outcome run(const std::vector<std::string>& arguments, const std::string& input = "",
                   const std::string& before = "") {
  const ScratchFolder scratch;
  write_file_atomically(scratch / "in", input);
  std::string command = fmt::format("{} {}", before, quoted(MAMBIFY_PROGRAM));
  for (const std::string& argument : arguments) command += ' ' + quoted(argument);
  command += fmt::format(" <{} >{} 2>{}", quoted(scratch / "in"), quoted(scratch / "out"),
                         quoted(scratch / "err"));
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          read_text_file(scratch / "out"), read_text_file(scratch / "err")};
}

}  // namespace mambify::testing
