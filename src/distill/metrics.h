// metrics.jsonl: one line for each logged step of a run.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/file.h"
#include "distill/losses.h"

namespace mambify {

struct StepMetrics {
  int64_t stage = 0, round = 0;
  std::string kind;
  int64_t step = 0;    // of the run, from 1
  int64_t tokens = 0;  // trained on so far
  Losses losses;
  double rate = 0, rate_rest = 0;  // learning rates of this step
  double gradient_norm = 0;        // before clipping
  double seconds = 0;              // this step took
  double tokens_per_second = 0;
  int64_t skipped = 0;  // steps skipped so far
};

// A value that is not finite becomes null: JSON has no word for it.
nlohmann::json to_json(const StepMetrics& metrics);

// Appends lines to a file. What was written is on the way to the disk when append returns, so that
// a checkpoint can remember the length.
class MetricsLog {
 public:
  // Cuts the file to `bytes`, where the checkpoint stood; it may be longer, never shorter.
  MetricsLog(const fs::path& file, int64_t bytes);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void append(const StepMetrics& metrics);
  // The file's length, after it has reached the disk.
  int64_t sync();

 private:
  fs::path file_;
  int descriptor_ = -1;
  int64_t bytes_ = 0;
};

std::vector<nlohmann::json> read_metrics(const fs::path& file);

}  // namespace mambify
