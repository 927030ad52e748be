// How likely continuations of a text are to a model, in the tokens of EleutherAI's
// lm-evaluation-harness.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/model.h"
#include "text/tokenizer.h"

namespace mambify {

// One continuation as tokens: those after the first `scored_from` are scored.
struct ScoredText {
  std::vector<TokenId> ids;
  int64_t scored_from = 0;
};

// Context and continuation encoded together; the continuation's tokens are those after as many as
// the context alone has. At most max_positions tokens are kept, from the right (0: all). An empty
// context is replaced by the beginning-of-sequence or, without one, the end-of-sequence token.
// Throws Error when no token is left to score or none stands before them.
ScoredText encode_pair(const Tokenizer& tokenizer, const std::string& context,
                       const std::string& continuation, int64_t max_positions);

// What the model makes of one continuation.
struct Likelihood {
  double log_likelihood = 0;  // nats
  bool is_greedy = true;      // each token is the likeliest
};

// One for each text, in order. title: of the progress bar.
std::vector<Likelihood> score_texts(const Model& model, const std::vector<ScoredText>& texts,
                                    const std::string& title);

}  // namespace mambify
