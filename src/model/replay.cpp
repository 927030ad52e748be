#include "model/replay.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include "model/context.h"

namespace mambify {
namespace {

at::Tensor to_index(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

}  // namespace

Replay::Replay(const Segments& documents, const ModelState& state, const std::vector<int64_t>& rows,
               const std::vector<int64_t>& drafts, at::Device device) {
  std::vector<int64_t> replayed, order, fresh, kept, kept_places;
  int64_t all_pending = 0;
  for (int64_t row : rows) all_pending += state.pending[row];
  segments_.starts = {0};
  for (int64_t d = 0; d < documents.documents(); ++d) {
    const int64_t row = rows[d], pending = state.pending[row], first = row * state.max_drafts;
    const int64_t new_drafts = drafts.empty() ? 0 : drafts[d];
    const int64_t begin = segments_.starts.back(), length = pending + documents.length(d);
    const int64_t commit = state.commit_of(row, documents.length(d), new_drafts);
    for (int64_t i = 0; i < pending; ++i) {
      order.push_back(static_cast<int64_t>(replayed.size()));
      replayed.push_back(first + i);
    }
    for (int64_t t = documents.begin(d); t < documents.begin(d) + documents.length(d); ++t) {
      fresh.push_back(static_cast<int64_t>(order.size()));
      order.push_back(all_pending + t);
    }
    for (int64_t i = commit; i < length; ++i) {
      kept.push_back(begin + i);
      kept_places.push_back(first + i - commit);
    }
    segments_.starts.push_back(begin + length);
    segments_.commits.push_back(commit);
  }
  if (!replayed.empty()) {
    replayed_ = to_index(replayed, device);
    order_ = to_index(order, device);
    new_ = to_index(fresh, device);
  }
  if (!kept.empty()) {
    kept_ = to_index(kept, device);
    kept_places_ = to_index(kept_places, device);
  }
}

at::Tensor Replay::with_pending(const at::Tensor& pending, const at::Tensor& fresh) const {
  if (!replayed_.defined()) return fresh;
  const at::Tensor before = pending.flatten(0, 1).index_select(0, replayed_);
  return at::cat({before, fresh}).index_select(0, order_);
}

at::Tensor Replay::of_new_tokens(const at::Tensor& results) const {
  return new_.defined() ? results.index_select(0, new_) : results;
}

void Replay::keep_pending(at::Tensor& pending, const at::Tensor& inputs) const {
  if (!kept_.defined()) return;
  pending.flatten(0, 1).index_copy_(0, kept_places_, inputs.index_select(0, kept_));
}

}  // namespace mambify
