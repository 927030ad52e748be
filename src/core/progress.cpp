#include "core/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace mambify {
namespace {

bool g_enabled = true;

std::string clock_text(double seconds) {
  const auto whole = static_cast<int64_t>(seconds);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

void Progress::set_enabled(bool enabled) { g_enabled = enabled; }

Progress::Progress(std::string title, int64_t total, std::string unit)
    : title_(std::move(title)),
      unit_(std::move(unit)),
      total_(std::max<int64_t>(total, 1)),
      start_(Clock::now()),
      last_print_(start_),
      terminal_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
  if (printed_) print(/*last=*/true);
}

void Progress::update(int64_t done, const std::string& note) {
  done_ = done;
  note_ = note;
  const auto now = Clock::now();
  const auto interval = terminal_ ? std::chrono::milliseconds(200) : std::chrono::seconds(10);
  if (now - last_print_ < interval) return;
  last_print_ = now;
  print(/*last=*/false);
}

void Progress::print(bool last) {
  if (!g_enabled) return;
  printed_ = true;
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const double fraction = std::clamp(static_cast<double>(done_) / total_, 0.0, 1.0);
  const double rate = seconds > 0 ? done_ / seconds : 0;
  const double left = rate > 0 ? (total_ - done_) / rate : 0;
  std::string line = fmt::format("{} {:3.0f} % {}/{} {} {:.0f} {}/s {}", title_, 100 * fraction,
                                 done_, total_, unit_, rate, unit_, clock_text(seconds));
  if (!last) line += fmt::format(", {} left", clock_text(std::max(left, 0.0)));
  if (!note_.empty()) line += fmt::format(", {}", note_);
  if (terminal_) {
    fmt::print(stderr, "\r\x1b[K{}{}", line, last ? "\n" : "");
  } else {
    fmt::print(stderr, "{}\n", line);
  }
  std::fflush(stderr);
}

}  // namespace mambify
