// Drawing what follows the tokens of a pass, and when a guess becomes a token of its sequence.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "decode/drafter.h"
#include "decode/model_rows.h"

namespace mambify {

// When a guess becomes a token of the sequence.
enum class Acceptance {
  exact,  // when it is the token that the model draws there itself
  // by rejection sampling, more often; tokens that are not sampled are as with exact
  distribution,
};

// Whether guesses of what is drawn so are accepted by rejection sampling.
inline bool samples_by_rejection(Acceptance acceptance, const SamplingOptions& sampling) {
  return acceptance == Acceptance::distribution && sampling.temperature > 0;
}

// A token to be drawn and, where rejection sampling decides on it, what was guessed.
struct GuessedDraw {
  TokenDraw draw;
  const Draft* draft = nullptr;  // null: the model draws by itself
  size_t guess = 0;              // its number in the draft
};

// Reads the inputs and draws what follows their scored tokens, one draw for each.
std::vector<TokenId> read_and_draw(ModelRows& rows, std::span<const RowInput> inputs,
                                   std::span<const GuessedDraw> draws);

}  // namespace mambify
