// Progress of long work, on stderr: a bar on a terminal, a line every ten seconds elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace mambify {

class Progress {
 public:
  // total: how many units of work there are; unit: what one is called ("tokens", "MB").
  Progress(std::string title, int64_t total, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // done: units finished so far, since the start; note: shown behind the rate ("loss 1.23").
  void update(int64_t done, const std::string& note = "");

  // Switches all bars of the process off (--quiet, tests).
  static void set_enabled(bool enabled);

 private:
  using Clock = std::chrono::steady_clock;
  void print(bool last);

  std::string title_, unit_, note_;
  int64_t total_, done_ = 0;
  Clock::time_point start_, last_print_;
  bool terminal_, printed_ = false;
};

}  // namespace mambify
