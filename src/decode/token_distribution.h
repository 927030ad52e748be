// A distribution over tokens, and speculative sampling with it: guesses that are drawn from one
// distribution are turned into draws from another.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "decode/sampler.h"

namespace mambify {

class TokenDistribution {
 public:
  // Always the same token.
  explicit TokenDistribution(TokenId token) : tokens_{{token, 1}} {}
  // What sample_token draws from; tokens: as there. Needs temperature > 0.
  TokenDistribution(std::span<const float> logits, const SamplingOptions& options,
                    std::span<const TokenId> tokens = {});

  // 0 for tokens that the filters left out or that have no logit.
  double probability(TokenId token) const;
  // max(0, this - other), renormalised; this itself when nothing is left.
  TokenDistribution above(const TokenDistribution& other) const;
  // The token at which the probabilities, summed by id, pass `uniform`, which lies in (0, 1).
  TokenId at(double uniform) const;

 private:
  struct Entry {
    TokenId id;
    double probability;
  };
  explicit TokenDistribution(std::vector<Entry> tokens) : tokens_(std::move(tokens)) {}
  void normalise();

  std::vector<Entry> tokens_;  // by id
};

// The guess with probability min(1, p / q), else a draw from what p has above q: one that is
// distributed as p whatever q is, when the guess was drawn from q. Leviathan et al., "Fast
// Inference from Transformers via Speculative Decoding" (2023), algorithm 1. The random numbers are
// a function of (seed, sequence, position), and other ones than sample_token's.
TokenId accept_or_redraw(TokenId guess, const TokenDistribution& q, const TokenDistribution& p,
                         uint64_t seed, uint32_t sequence, uint32_t position);

}  // namespace mambify
