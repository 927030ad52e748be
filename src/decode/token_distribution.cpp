#include "decode/token_distribution.h"

#include <algorithm>
#include <cmath>

#include "core/random.h"

namespace mambify {

TokenDistribution::TokenDistribution(std::span<const float> logits, const SamplingOptions& options,
                                     std::span<const TokenId> tokens) {
  std::vector<Candidate> kept = filter_logits(logits, options, tokens);
  std::ranges::sort(kept, {}, &Candidate::id);
  const double best = std::ranges::max(kept, {}, &Candidate::score).score;
  tokens_.reserve(kept.size());
  for (const Candidate& candidate : kept) {
    tokens_.push_back({candidate.id, std::exp(candidate.score - best)});
  }
  normalise();
}

void TokenDistribution::normalise() {
  double total = 0;
  for (const Entry& entry : tokens_) total += entry.probability;
  for (Entry& entry : tokens_) entry.probability /= total;
}

double TokenDistribution::probability(TokenId token) const {
  const auto found = std::ranges::lower_bound(tokens_, token, {}, &Entry::id);
  return found != tokens_.end() && found->id == token ? found->probability : 0;
}

TokenDistribution TokenDistribution::above(const TokenDistribution& other) const {
  std::vector<Entry> left;
  auto theirs = other.tokens_.begin();
  for (const Entry& ours : tokens_) {
    while (theirs != other.tokens_.end() && theirs->id < ours.id) ++theirs;
    const bool shared = theirs != other.tokens_.end() && theirs->id == ours.id;
    const double above = ours.probability - (shared ? theirs->probability : 0);
    if (above > 0) left.push_back({ours.id, above});
  }
  if (left.empty()) return *this;
  TokenDistribution result(std::move(left));
  result.normalise();
  return result;
}

TokenId TokenDistribution::at(double uniform) const {
  double sum = 0;
  for (const Entry& entry : tokens_) {
    sum += entry.probability;
    if (uniform < sum) return entry.id;
  }
  return tokens_.back().id;  // the sum was rounded to below the number
}

TokenId accept_or_redraw(TokenId guess, const TokenDistribution& q, const TokenDistribution& p,
                         uint64_t seed, uint32_t sequence, uint32_t position) {
  const CounterRandom accept(seed, RandomPurpose::accept, sequence);
  const double uniform = accept.uniform(position, 0);
  if (uniform * q.probability(guess) < p.probability(guess)) return guess;
  const CounterRandom redraw(seed, RandomPurpose::redraw, sequence);
  return p.above(q).at(redraw.uniform(position, 0));
}

}  // namespace mambify
