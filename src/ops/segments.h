// Packed documents: sequences of different lengths laid end to end in one row of tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace mambify {

// Document i is tokens [starts[i], starts[i + 1]); the last entry is the number of tokens. State,
// convolution window and attention restart at each start.
struct Segments {
  std::vector<int64_t> starts;
  // Tokens of each document that its state and window are left after; those behind them are
  // computed and leave no trace. Empty: all. Without gradients only.
  std::vector<int64_t> commits = {};
  // `starts` where the activations are, for kernels of a CUDA device; null on the CPU (ops/cuda.h).
  std::shared_ptr<const int32_t> device_starts = nullptr;

  static Segments one(int64_t tokens) { return {.starts = {0, tokens}}; }

  // For kernels: null when all tokens are committed.
  const int64_t* commits_or_null() const { return commits.empty() ? nullptr : commits.data(); }

  int64_t documents() const { return static_cast<int64_t>(starts.size()) - 1; }
  int64_t tokens() const { return starts.back(); }
  int64_t begin(int64_t document) const { return starts[document]; }
  int64_t length(int64_t document) const { return starts[document + 1] - starts[document]; }
};

}  // namespace mambify
