// How well a model predicts plain text.
#pragma once

#include <cstdint>

#include "eval/passes.h"

namespace mambify {

struct PerplexityOptions {
  int64_t window = 1024;    // tokens; windows do not overlap and each starts from nothing
  int64_t max_windows = 0;  // 0: all
};

struct PerplexityResult {
  double mean_nll = 0;        // nats per predicted token
  double mean_nll_error = 0;  // standard error over windows
  double perplexity = 0;
  int64_t windows = 0;
  int64_t tokens = 0;  // predicted: window - 1 for each
};

// The first token of each window is not predicted; a last partial window is dropped. Throws Error
// for a text of less than one window.
PerplexityResult perplexity(const Model& model, TokenSpan text, const PerplexityOptions& options);

}  // namespace mambify
