#include "decode/logit_scan.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>

#include "kernels/math.h"

namespace mambify {
namespace {

// The sum of fast_exp((logit - best) * inverse) over a block, in lanes that are added in order.
// Two roundings of a difference's 24 bits are 1e-5 of the smallest term that counts.
MAMBIFY_CLONES double sum_of_block(const float* logits, size_t count, float best, float inverse) {
  std::array<float, kLogitLanes> lanes{};
  size_t i = 0;
  for (; i + kLogitLanes <= count; i += kLogitLanes) {
    for (size_t lane = 0; lane < kLogitLanes; ++lane) {
      const float x = (logits[i + lane] - best) * inverse;
      lanes[lane] += x <= 0.0f ? kernels::fast_exp(x) : 0.0f;  // not where it is NaN
    }
  }
  double sum = 0;
  for (const float lane : lanes) sum += lane;
  for (; i < count; ++i) {
    const float x = (logits[i] - best) * inverse;
    if (x <= 0.0f) sum += kernels::fast_exp(x);
  }
  return sum;
}

// A power of two above e^x, by a factor of two to four. x: at most 0.
MAMBIFY_INLINE float power_of_two_above_exp(float x) {
  const float exponent = x * std::numbers::log2e_v<float>;
  // Truncation rounds a negative number up.
  return std::bit_cast<float>(
      (static_cast<int32_t>(exponent > -120.0f ? exponent : -120.0f) + 1 + 127) << 23);
}

// Whether the noise of each logit may lift it above `best`. Random bits are enough to tell:
// -log(-log u) <= -log(1 - u), so score - log(1 - u) < best rules it out.
using Marks = std::array<uint8_t, kLogitBlock>;
MAMBIFY_CLONES void mark_contenders(const float* logits, const uint32_t* bits, float inverse,
                                    float best, Marks& marks) {
  for (size_t i = 0; i < kLogitBlock; ++i) {
    const float behind = logits[i] * inverse - best;
    const float bound = power_of_two_above_exp(behind < 0.0f ? behind : 0.0f);
    // No more than 1 - u.
    const float complement = static_cast<float>(static_cast<int32_t>(~bits[i] >> 8)) * 0x1p-24f;
    marks[i] = complement <= bound;
  }
}

MAMBIFY_CLONES void fill_bits(const CounterRandom& random, uint32_t position, uint32_t first,
                              LogitBits& bits) {
  random.many_bits<kLogitBlock / 4>(position, first / 4, bits);
}

}  // namespace

LogitBits bits_of_block(const CounterRandom& random, uint32_t position, uint32_t first) {
  LogitBits bits;
  fill_bits(random, position, first, bits);
  return bits;
}

Contenders find_contenders(std::span<const float> block, const LogitBits& bits, double temperature,
                           double best) {
  // Up to here a bound that is twice too large covers the roundings of scores in fp32.
  constexpr double kLargestScore = 0x1p20;
  Marks marks;
  marks.fill(1);
  if (std::abs(best) < kLargestScore) {
    std::array<float, kLogitBlock> logits{};
    std::ranges::copy(block, logits.begin());
    mark_contenders(logits.data(), bits.data(), static_cast<float>(1 / temperature),
                    static_cast<float>(best), marks);
  }
  Contenders contenders;
  for (size_t begin = 0; begin < block.size(); begin += sizeof(uint64_t)) {
    uint64_t any;
    std::memcpy(&any, marks.data() + begin, sizeof(any));
    if (any == 0) continue;
    for (size_t i = begin; i < std::min(begin + sizeof(any), block.size()); ++i) {
      if (marks[i] != 0) contenders.places[contenders.count++] = static_cast<uint16_t>(i);
    }
  }
  return contenders;
}

float largest_logit(std::span<const float> logits) {
  std::array<float, kLogitLanes> lanes;
  lanes.fill(kNoLogit);
  size_t i = 0;
  for (; i + kLogitLanes <= logits.size(); i += kLogitLanes) {
    for (size_t lane = 0; lane < kLogitLanes; ++lane) {
      const float value = logits[i + lane];
      lanes[lane] = value > lanes[lane] ? value : lanes[lane];
    }
  }
  float result = *std::max_element(lanes.begin(), lanes.end());
  for (; i < logits.size(); ++i) result = std::max(result, logits[i]);
  return result;
}

double sum_of_exponentials(std::span<const float> logits, float best, double temperature) {
  // Blocks so short that their sums in fp32 lose nothing.
  constexpr size_t kBlock = 64 * kLogitLanes;
  const auto inverse = static_cast<float>(1 / temperature);
  double sum = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    sum +=
        sum_of_block(logits.data() + begin, std::min(kBlock, logits.size() - begin), best, inverse);
  }
  return sum;
}

}  // namespace mambify
