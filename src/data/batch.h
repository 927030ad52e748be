// What one part of a training step reads.
#pragma once

#include <cstdint>
#include <vector>

#include "data/dataset.h"
#include "ops/segments.h"

namespace mambify {

// Tokens of several documents laid end to end. All vectors have one entry a token.
struct Batch {
  std::vector<int64_t> ids;
  std::vector<int64_t> labels;  // the next token of the same document; 0 where there is none
  std::vector<float> weights;   // 1 where the loss counts the label, else 0
  Segments segments;
  int64_t next = 0;  // where the stream it is from goes on

  // Begins a document with tokens [begin, end) of one.
  void append(const Document& document, int64_t begin, int64_t end);

  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
  double total_weight() const;
};

// An endless stream of batches without padding, a pure function of the position, so that a resumed
// run needs to remember one number.
class BatchStream {
 public:
  virtual ~BatchStream() = default;
  // What stands at a position, at most `tokens` of it.
  virtual Batch batch(int64_t position, int64_t tokens) = 0;
};

}  // namespace mambify
