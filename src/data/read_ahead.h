// Batches prepared while the one before is computed with.
#pragma once

#include <cstdint>
#include <future>
#include <memory>

#include "data/batch.h"

namespace mambify {

// The batches of another stream, unchanged. Behind each, the batch that follows it is prepared on a
// thread of its own, so that a caller who goes on where it ended finds it made.
class ReadAheadStream : public BatchStream {
 public:
  explicit ReadAheadStream(std::unique_ptr<BatchStream> source);

  // Throws what the source throws for this position; what it throws for a batch that nobody asks
  // for is lost.
  Batch batch(int64_t position, int64_t tokens) override;

 private:
  std::unique_ptr<BatchStream> source_;
  // Which batch is prepared. The source belongs to that thread until it is.
  int64_t position_ = -1, tokens_ = 0;
  std::future<Batch> prepared_;
};

}  // namespace mambify
