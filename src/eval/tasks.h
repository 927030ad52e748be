// Benchmarks by likelihood, scored as EleutherAI's lm-evaluation-harness scores them.
#pragma once

#include <vector>

#include "eval/task_file.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace mambify {

// Per item, 1 for right and 0 for wrong.
struct TaskOutcome {
  std::vector<double> acc;       // by total log-likelihood; for last_word, whether it is greedy
  std::vector<double> acc_norm;  // by log-likelihood per character of the choice; empty for
                                 // last_word
};

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

TaskOutcome run_task(const Model& model, const Tokenizer& tokenizer, const Task& task);

}  // namespace mambify
