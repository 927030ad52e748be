#include "data/shuffle.h"

#include <numeric>
#include <utility>

#include "core/random.h"

namespace mambify {

std::vector<int64_t> shuffled(int64_t count, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  const CounterRandom random(seed, RandomPurpose::shuffle, static_cast<uint32_t>(epoch));
  for (int64_t i = count - 1; i > 0; --i) {  // Fisher-Yates
    const uint64_t bits = random.bits(static_cast<uint32_t>(i), 0);
    std::swap(order[i], order[(bits * static_cast<uint64_t>(i + 1)) >> 32]);
  }
  return order;
}

}  // namespace mambify
