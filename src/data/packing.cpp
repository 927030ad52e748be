#include "data/packing.h"

#include <algorithm>

#include "core/error.h"
#include "data/shuffle.h"

namespace mambify {

PackedStream::PackedStream(const Dataset& dataset, int64_t sequence_length, uint64_t seed)
    : dataset_(&dataset),
      sequence_length_(sequence_length),
      seed_(seed),
      epoch_tokens_(dataset.tokens()) {
  if (epoch_tokens_ == 0) throw Error("the data has no tokens to train on");
}

void PackedStream::shuffle(int64_t epoch) {
  if (epoch == epoch_) return;
  epoch_ = epoch;
  order_ = shuffled(std::ssize(dataset_->documents), seed_, epoch);
  starts_.assign(1, 0);
  for (const int64_t index : order_) {
    starts_.push_back(starts_.back() + std::ssize(dataset_->documents[index].ids));
  }
}

Batch PackedStream::batch(int64_t position, int64_t tokens) {
  Batch batch;
  batch.ids.reserve(tokens);
  batch.labels.reserve(tokens);
  batch.weights.reserve(tokens);
  while (batch.tokens() < tokens) {
    const int64_t at = position + batch.tokens();
    shuffle(at / epoch_tokens_);
    const int64_t within = at % epoch_tokens_;
    const auto next = std::upper_bound(starts_.begin(), starts_.end(), within);
    const int64_t index = next - starts_.begin() - 1;
    const Document& document = dataset_->documents[order_[index]];
    const int64_t length = std::ssize(document.ids);
    const int64_t begin = within - starts_[index];
    const int64_t piece_end = std::min(length, (begin / sequence_length_ + 1) * sequence_length_);
    const int64_t end = std::min(piece_end, begin + tokens - batch.tokens());
    batch.append(document, begin, end);
  }
  batch.segments.starts.push_back(batch.tokens());
  batch.next = position + tokens;
  return batch;
}

}  // namespace mambify
