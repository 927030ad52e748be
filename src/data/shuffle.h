// The order in which an epoch goes through the data.
#pragma once

#include <cstdint>
#include <vector>

namespace mambify {

// The numbers 0 to count - 1 in an order of the epoch's own, a function of seed and epoch alone.
std::vector<int64_t> shuffled(int64_t count, uint64_t seed, int64_t epoch);

}  // namespace mambify
