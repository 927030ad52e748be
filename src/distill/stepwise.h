// The rounds of a stepwise stage: attention is replaced in several goes (Wang et al. 2024).
#pragma once

#include <vector>

#include "distill/stages.h"

namespace mambify {

// One phase a round, the limits of the whole stage split evenly (earlier rounds take the rest).
// kept: per round the layers that keep attention; each round's must be among the one's before.
// Throws Error otherwise, and when there are fewer steps than rounds.
std::vector<Phase> stepwise_rounds(const Phase& whole,
                                   const std::vector<std::vector<int64_t>>& kept);

// Gives layers `kept` of a student that are already Mamba layers, because `align` has fitted them
// say, the teacher's attention for a round. Throws Error when the teacher has none there.
void lend_attention(const Model& teacher, const std::vector<int64_t>& kept, Model& student);
// Takes what was trained of a student, in part with lent attention, into the whole one.
void take_trained(const Model& trained, Model& student);

}  // namespace mambify
