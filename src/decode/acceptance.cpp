#include "decode/acceptance.h"

#include <algorithm>

#include "kernels/parallel.h"

namespace mambify {
namespace {

TokenId draw_one(const GuessedDraw& guessed, std::span<const float> scores) {
  const auto& [sampling, sequence, position] = guessed.draw;
  if (guessed.draft == nullptr) return sample_token(scores, sampling, sequence, position);
  const Draft& draft = *guessed.draft;
  const TokenId guess = draft.tokens[guessed.guess];
  const TokenDistribution target(scores, sampling), certain(guess);
  return accept_or_redraw(
      guess, draft.distributions.empty() ? certain : draft.distributions[guessed.guess], target,
      sampling.seed, sequence, position);
}

}  // namespace

std::vector<TokenId> read_and_draw(ModelRows& rows, std::span<const RowInput> inputs,
                                   std::span<const GuessedDraw> draws) {
  if (std::ranges::all_of(draws, [](const GuessedDraw& draw) { return draw.draft == nullptr; })) {
    std::vector<TokenDraw> own(draws.size());
    std::ranges::transform(draws, own.begin(), &GuessedDraw::draw);
    return rows.read_and_draw(inputs, own);
  }
  const NextTokenScores scores = rows.read(inputs);
  std::vector<TokenId> drawn(draws.size());
  kernels::parallel_tasks(scores.size(), scores.numbers(),
                          [&](int64_t i) { drawn[i] = draw_one(draws[i], scores[i]); });
  return drawn;
}

}  // namespace mambify
