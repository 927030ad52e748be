#include "data/read_ahead.h"

#include <utility>

namespace mambify {

ReadAheadStream::ReadAheadStream(std::unique_ptr<BatchStream> source)
    : source_(std::move(source)) {}

Batch ReadAheadStream::batch(int64_t position, int64_t tokens) {
  Batch made;
  if (prepared_.valid() && position_ == position && tokens_ == tokens) {
    made = prepared_.get();
  } else {
    if (prepared_.valid()) prepared_.wait();
    made = source_->batch(position, tokens);
  }
  position_ = made.next;
  tokens_ = tokens;
  prepared_ = std::async(std::launch::async,
                         [this, next = made.next, tokens] { return source_->batch(next, tokens); });
  return made;
}

}  // namespace mambify
