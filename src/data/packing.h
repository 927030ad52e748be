// Documents packed into batches.
#pragma once

#include <cstdint>
#include <vector>

#include "data/batch.h"
#include "data/dataset.h"

namespace mambify {

// The dataset's tokens in an order shuffled anew each epoch. Positions are tokens, and a batch has
// exactly as many as are asked for.
class PackedStream : public BatchStream {
 public:
  // sequence_length: longer documents are cut into pieces of it, each with a fresh state. The
  // dataset must outlive the stream.
  PackedStream(const Dataset& dataset, int64_t sequence_length, uint64_t seed);

  // Tokens [position, position + tokens) of the stream. A document cut by the end of a batch goes
  // on in the next one as a document of its own.
  Batch batch(int64_t position, int64_t tokens) override;

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
