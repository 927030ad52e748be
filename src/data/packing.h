// An endless stream of training batches without padding.
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

  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
  double total_weight() const;
};

// The dataset's tokens in an order shuffled anew each epoch. The stream is a pure function of the
// position, so that a resumed run needs to remember one number.
class PackedStream {
 public:
  // sequence_length: longer documents are cut into pieces of it, each with a fresh state. The
  // dataset must outlive the stream.
  PackedStream(const Dataset& dataset, int64_t sequence_length, uint64_t seed);

  // Tokens [position, position + tokens) of the stream. A document cut by the end of a batch goes
  // on in the next one as a document of its own.
  Batch batch(int64_t position, int64_t tokens);

  int64_t epoch_tokens() const { return epoch_tokens_; }

 private:
  void shuffle(int64_t epoch);

  const Dataset* dataset_;
  int64_t sequence_length_;
  uint64_t seed_;
  int64_t epoch_tokens_;
  int64_t epoch_ = -1;           // the epoch that the two vectors below are of
  std::vector<int64_t> order_;   // document indices
  std::vector<int64_t> starts_;  // where each begins in the epoch, and the end
};

}  // namespace mambify
