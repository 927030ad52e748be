// A full disk, for tests: the file system refuses to let any file grow past a limit.
#pragma once

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <string>

namespace mambify::testing {

// Runs `body` in a child process in which no file can be written past `bytes` (EFBIG, as ENOSPC on
// a full disk, comes back from write). Returns what() of what it threw, "" when it threw nothing.
inline std::string message_when_files_end_at(size_t bytes, const std::function<void()>& body) {
  int pipe_ends[2];
  if (::pipe(pipe_ends) != 0) return "no pipe";
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, bytes};
    std::string message = "no limit";
    if (::setrlimit(RLIMIT_FSIZE, &limit) == 0) {
      try {
        body();
        message.clear();
      } catch (const std::exception& error) {
        message = error.what();
      }
    }
    const ssize_t written = ::write(pipe_ends[1], message.data(), message.size());
    ::_exit(written == static_cast<ssize_t>(message.size()) ? 0 : 1);
  }
  ::close(pipe_ends[1]);
  std::string message;
  char buffer[512];
  for (ssize_t count; (count = ::read(pipe_ends[0], buffer, sizeof(buffer))) > 0;) {
    message.append(buffer, static_cast<size_t>(count));
  }
  ::close(pipe_ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) message += " (the child died)";
  return message;
}

}  // namespace mambify::testing
