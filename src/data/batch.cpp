#include "data/batch.h"

#include <numeric>

namespace mambify {

double Batch::total_weight() const { return std::accumulate(weights.begin(), weights.end(), 0.0); }

}  // namespace mambify
