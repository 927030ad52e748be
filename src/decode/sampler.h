// One token from one row of logits: greedy, or filtered sampling by Gumbel-max.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "text/tokenizer.h"

namespace mambify {

// The filters apply in this order: temperature, top-k, top-p, min-p; each to what the one before
// kept, renormalised. The defaults are off.
struct SamplingOptions {
  double temperature = 0;  // divides the logits; 0: the likeliest token, whatever the filters
  int64_t top_k = 0;       // keep the k likeliest tokens; 0: all
  double top_p = 1;        // keep the fewest likeliest tokens that have this much probability
  double min_p = 0;        // keep tokens at least this probable relative to the likeliest
  uint64_t seed = 0;

  // Throws UsageError naming the option that is out of range.
  void check() const;
};

// A token that the filters kept, with its logit divided by the temperature.
struct Candidate {
  TokenId id;
  double score;
};

// The largest logit's token, of equal ones the lowest id. Throws Error when none is a number.
TokenId greedy_token(std::span<const float> logits);

// How probable the likeliest token is at temperature 1, without filters.
double likeliest_probability(std::span<const float> logits);

// Below, `tokens` tells what each logit is of where they are not of all tokens: ascending ids;
// empty: logit i is token i's. Tokens without a logit are as if theirs were -infinity.

// What the filters keep of a row of logits; likeliest first (of equal ones the lowest id) where
// top-k or top-p sorted them, else by id. Needs temperature > 0.
std::vector<Candidate> filter_logits(std::span<const float> logits, const SamplingOptions& options,
                                     std::span<const TokenId> tokens = {});

// Draws from the kept tokens' distribution. The random numbers are a function of (seed, sequence,
// position, token id) alone, position being that of the drawn token in its sequence: whatever else
// is decoded beside it or was drawn before, the same logits give the same token.
TokenId sample_token(std::span<const float> logits, const SamplingOptions& options,
                     uint32_t sequence, uint32_t position, std::span<const TokenId> tokens = {});

}  // namespace mambify
