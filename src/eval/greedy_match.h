// How long two models say the same.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eval/passes.h"

namespace mambify {

// The model's greedy continuations of several prompts, decoded side by side; end-of-sequence tokens
// do not end them. packed: as an engine takes it.
std::vector<std::vector<TokenId>> greedy_continuations(
    const Model& model, std::span<const std::vector<TokenId>> prompts, int64_t tokens,
    const PackedWeights* packed = nullptr);

// Per prompt, how many tokens of the student's greedy continuation equal the teacher's, up to
// `tokens`.
std::vector<int64_t> greedy_matches(const Model& student, const Model& teacher,
                                    std::span<const std::vector<TokenId>> prompts, int64_t tokens);

}  // namespace mambify
