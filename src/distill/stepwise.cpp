#include "distill/stepwise.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/error.h"

namespace mambify {

std::vector<Phase> stepwise_rounds(const Phase& whole,
                                   const std::vector<std::vector<int64_t>>& kept) {
  const auto rounds = std::ssize(kept);
  if (whole.seconds == 0 && whole.steps < rounds) {
    throw Error("recipe: [[stage]] {}: {} steps for {} rounds", whole.stage, whole.steps, rounds);
  }
  std::vector<Phase> phases;
  for (int64_t round = 0; round < rounds; ++round) {
    if (round > 0 && !std::ranges::includes(kept[round - 1], kept[round])) {
      throw Error(
          "recipe: keep_attention of [[stage]] {}: round {} keeps layers {}, which are not "
          "all among layers {} of the round before",
          whole.stage, round, fmt::join(kept[round], ","), fmt::join(kept[round - 1], ","));
    }
    Phase phase = whole;
    phase.round = round;
    phase.steps = whole.steps / rounds + (round < whole.steps % rounds ? 1 : 0);
    phase.seconds = whole.seconds / static_cast<double>(rounds);
    phase.keep_attention = kept[round];
    phases.push_back(std::move(phase));
  }
  return phases;
}

}  // namespace mambify
