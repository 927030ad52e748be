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

void lend_attention(const Model& teacher, const std::vector<int64_t>& kept, Model& student) {
  for (const int64_t layer : kept) {
    if (kind_of(student.blocks[layer].mixer) == MixerKind::attention) continue;
    if (layer >= teacher.config.n_layer() ||
        kind_of(teacher.blocks[layer].mixer) != MixerKind::attention) {
      throw Error(
          "stepwise: layer {} is to keep attention, and neither student nor teacher has any",
          layer);
    }
    student.blocks[layer].mixer = teacher.blocks[layer].mixer;
    student.config.layers[layer] = MixerKind::attention;
  }
}

void take_trained(const Model& trained, Model& student) {
  const bool tied = trained.lm_head.is_same(trained.embedding);
  for (int64_t layer = 0; layer < student.config.n_layer(); ++layer) {
    Mixer own = student.blocks[layer].mixer;
    const bool was_lent = kind_of(own) != kind_of(trained.blocks[layer].mixer);
    student.blocks[layer] = trained.blocks[layer];
    if (was_lent) student.blocks[layer].mixer = std::move(own);
  }
  student.embedding = trained.embedding;
  student.final_norm = trained.final_norm;
  student.lm_head = tied ? student.embedding : trained.lm_head;
}

}  // namespace mambify
