// What the recurrent layers of a pass compute: each document's pending tokens, then its new ones.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "ops/segments.h"

namespace mambify {

struct ModelState;

class Replay {
 public:
  Replay() = default;
  // Without a state: the documents as they are.
  explicit Replay(const Segments& documents) : segments_(documents) {}
  // Document i continues row rows[i] of the state; its last drafts[i] tokens are drafts, none where
  // `drafts` is empty. Throws c10::Error when the state cannot hold that many, or when tokens that
  // are none would follow drafts.
  Replay(const Segments& documents, const ModelState& state, const std::vector<int64_t>& rows,
         const std::vector<int64_t>& drafts, at::Device device);

  // The documents with what is replayed, and how much of each its state is left after.
  const Segments& segments() const { return segments_; }

  // fresh: [new tokens, width]; pending: [rows, max_drafts, width] of the state. Returns
  // [segments().tokens(), width].
  at::Tensor with_pending(const at::Tensor& pending, const at::Tensor& fresh) const;
  // Of results for all of segments(), [tokens, ...], those of the new tokens.
  at::Tensor of_new_tokens(const at::Tensor& results) const;
  // Keeps the inputs (as with_pending returns them) of what the state does not hold afterwards.
  void keep_pending(at::Tensor& pending, const at::Tensor& inputs) const;

 private:
  Segments segments_;
  // Indices, [n] int64; undefined where there is nothing to do.
  at::Tensor replayed_;            // of pending's tokens, those that are replayed
  at::Tensor order_, new_;         // places in cat(replayed, fresh) of segments_' tokens; and back
  at::Tensor kept_, kept_places_;  // of segments_' tokens those that stay pending, and where
};

}  // namespace mambify
