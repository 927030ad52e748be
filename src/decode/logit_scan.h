// Passes over a row of logits, many of them at a time: a vocabulary has tens of thousands, of which
// few matter.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "core/random.h"

namespace mambify {

// Values side by side, which the compiler turns into vector registers.
inline constexpr size_t kLogitLanes = 32;
inline constexpr float kNoLogit = -std::numeric_limits<float>::infinity();

// The largest logit; kNoLogit where none is a number.
float largest_logit(std::span<const float> logits);

// The sum of e^((logit - best) / temperature), relative error below 1e-5, with the same bits on
// every processor. What is no number counts nothing. best: the largest logit.
double sum_of_exponentials(std::span<const float> logits, float best, double temperature);

inline constexpr size_t kLogitBlock = 8 * kLogitLanes;
using LogitBits = std::array<uint32_t, kLogitBlock>;
// random.bits(position, token) of the tokens from `first` on, a multiple of kLogitBlock.
LogitBits bits_of_block(const CounterRandom& random, uint32_t position, uint32_t first);

// Places in a block.
struct Contenders {
  std::array<uint16_t, kLogitBlock> places;
  size_t count = 0;
};
// The logits of a block whose Gumbel noise, of these bits, may lift them, over the temperature,
// above `best`; with some more that it does not lift so far.
Contenders find_contenders(std::span<const float> block, const LogitBits& bits, double temperature,
                           double best);

// Calls use(i) for every logit above `floor`, in order; use may raise the floor. NaN is above none.
template <typename Use>
void for_each_above(std::span<const float> logits, const float& floor, const Use& use) {
  size_t i = 0;
  for (; i + kLogitLanes <= logits.size(); i += kLogitLanes) {
    std::array<int, kLogitLanes> is_above;
    int any = 0;
    for (size_t lane = 0; lane < kLogitLanes; ++lane) {
      is_above[lane] = logits[i + lane] > floor;
      any |= is_above[lane];
    }
    if (any == 0) continue;
    for (size_t lane = 0; lane < kLogitLanes; ++lane) {
      if (logits[i + lane] > floor) use(i + lane);
    }
  }
  for (; i < logits.size(); ++i) {
    if (logits[i] > floor) use(i);
  }
}

}  // namespace mambify
