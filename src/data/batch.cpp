#include "data/batch.h"

#include <numeric>

namespace mambify {

void Batch::append(const Document& document, int64_t begin, int64_t end) {
  segments.starts.push_back(tokens());
  for (int64_t i = begin; i < end; ++i) {
    const bool has_label = i + 1 < std::ssize(document.ids);
    ids.push_back(document.ids[i]);
    labels.push_back(has_label ? document.ids[i + 1] : 0);
    weights.push_back(has_label && document.counts[i + 1] ? 1.0f : 0.0f);
  }
}

double Batch::total_weight() const { return std::accumulate(weights.begin(), weights.end(), 0.0); }

}  // namespace mambify
