#include "decode/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "decode/logit_scan.h"

namespace mambify {
namespace {

bool likelier(const Candidate& a, const Candidate& b) {
  return a.score != b.score ? a.score > b.score : a.id < b.id;
}

// Sorts the `count` likeliest candidates to the front without sorting the rest.
void sort_front(std::vector<Candidate>& candidates, size_t count) {
  const auto middle = candidates.begin() + std::min(count, candidates.size());
  if (middle != candidates.end()) {
    std::nth_element(candidates.begin(), middle, candidates.end(), likelier);
  }
  std::sort(candidates.begin(), middle, likelier);
}

// The tokens whose score is not below `floor`.
std::vector<Candidate> at_least(std::span<const float> logits, double temperature, double floor) {
  std::vector<Candidate> kept;
  // Below the floor by more than its roundings, for a first look. Temperatures near 0 make scores
  // infinite.
  const float below = std::isfinite(floor)
                          ? std::nextafter(static_cast<float>(floor * temperature), kNoLogit)
                          : kNoLogit;
  for_each_above(logits, below, [&](size_t i) {
    const Candidate candidate{static_cast<TokenId>(i), logits[i] / temperature};
    if (!(candidate.score < floor)) kept.push_back(candidate);
  });
  return kept;
}

// The `count` likeliest tokens, likeliest first.
std::vector<Candidate> likeliest_of(std::span<const float> logits, double temperature,
                                    size_t count) {
  const size_t most = 2 * std::min(count, logits.size()) + kLogitLanes;
  std::vector<Candidate> kept;
  kept.reserve(most);
  // The logit of the last of the likeliest so far: an equal one behind it is not kept.
  float floor = kNoLogit;
  for_each_above(logits, floor, [&](size_t i) {
    kept.push_back({static_cast<TokenId>(i), logits[i] / temperature});
    if (kept.size() < most) return;
    std::nth_element(kept.begin(), kept.begin() + static_cast<ptrdiff_t>(count) - 1, kept.end(),
                     likelier);
    kept.resize(count);
    floor = logits[kept.back().id];
  });
  sort_front(kept, count);
  kept.resize(std::min(kept.size(), count));
  return kept;
}

// Keeps the fewest likeliest of which e^(score - best) has top_p of the total.
void keep_top_p(std::vector<Candidate>& candidates, double best, double total, double top_p) {
  double sum = 0;
  size_t kept = 0;
  for (size_t sorted = 64; kept < candidates.size(); sorted *= 4) {
    sort_front(candidates, sorted);
    sum = 0;
    for (kept = 0; kept < std::min(sorted, candidates.size());) {
      sum += std::exp(candidates[kept++].score - best);
      if (sum >= top_p * total) {
        candidates.resize(kept);
        return;
      }
    }
  }
}

// argmax of score + Gumbel noise, as sample_token defines it. Nearly every token is ruled out by
// its random bits.
TokenId gumbel_max(std::span<const float> logits, double temperature, const CounterRandom& random,
                   uint32_t position, std::span<const TokenId> tokens) {
  const auto noisy = [&](size_t i) {
    const TokenId id = tokens.empty() ? static_cast<TokenId>(i) : tokens[i];
    return Candidate{id,
                     static_cast<double>(logits[i]) / temperature + random.gumbel(position, id)};
  };
  std::array<uint32_t, 4> four{};  // of four tokens, which cost as much as those of one
  TokenId quarter = -1;            // of the tokens' ids
  const auto bits_of = [&](TokenId id) {
    if (id / 4 != quarter) four = random.four_bits(position, quarter = id / 4);
    return four[id % 4];
  };
  Candidate best = noisy(greedy_token(logits));
  for (size_t begin = 0; begin < logits.size(); begin += kLogitBlock) {
    const std::span<const float> block =
        logits.subspan(begin, std::min(kLogitBlock, logits.size() - begin));
    LogitBits bits;
    if (tokens.empty()) {
      bits = bits_of_block(random, position, static_cast<uint32_t>(begin));
    } else {
      for (size_t i = 0; i < block.size(); ++i) bits[i] = bits_of(tokens[begin + i]);
    }
    const Contenders contenders = find_contenders(block, bits, temperature, best.score);
    for (size_t n = 0; n < contenders.count; ++n) {
      const size_t i = begin + contenders.places[n];
      if (!(logits[i] > kNoLogit)) continue;
      const Candidate candidate = noisy(i);
      if (likelier(candidate, best)) best = candidate;
    }
  }
  return best.id;
}

}  // namespace

void SamplingOptions::check() const {
  if (!(temperature >= 0) || std::isinf(temperature)) {
    throw UsageError("temperature {}: expected a number of at least 0", temperature);
  }
  if (top_k < 0) throw UsageError("top-k {}: expected at least 0 (0: off)", top_k);
  if (!(top_p > 0 && top_p <= 1)) throw UsageError("top-p {}: expected above 0, up to 1", top_p);
  if (!(min_p >= 0 && min_p <= 1)) throw UsageError("min-p {}: expected from 0 to 1", min_p);
}

TokenId greedy_token(std::span<const float> logits) {
  const float maximum = largest_logit(logits);
  const auto found = std::find(logits.begin(), logits.end(), maximum);
  if (found == logits.end() || maximum == kNoLogit) {
    throw Error("the model's logits hold no number to choose a token by");
  }
  return static_cast<TokenId>(found - logits.begin());
}

double likeliest_probability(std::span<const float> logits) {
  return 1 / sum_of_exponentials(logits, largest_logit(logits), /*temperature=*/1);
}

std::vector<Candidate> filter_logits(std::span<const float> logits, const SamplingOptions& options,
                                     std::span<const TokenId> tokens) {
  const double temperature = options.temperature;
  const float largest = logits[greedy_token(logits)];
  const double best = largest / temperature, least = best + std::log(options.min_p);
  std::vector<Candidate> kept;
  double total = 0;  // of e^(score - best), of the tokens that top-p begins with
  if (options.top_k > 0) {
    kept = likeliest_of(logits, temperature, static_cast<size_t>(options.top_k));
    for (const Candidate& candidate : kept) total += std::exp(candidate.score - best);
  } else if (options.top_p < 1) {
    total = sum_of_exponentials(logits, largest, temperature);
    // Tokens of less than their share of what may be left out are left out: all of them together
    // have less than 1 - top_p. What must be sorted are the few others.
    const double share = 0.999 * (1 - options.top_p) * total / static_cast<double>(logits.size());
    kept = at_least(logits, temperature, best + std::log(share));
  } else {
    kept = at_least(logits, temperature, least);
  }
  if (options.top_p < 1) keep_top_p(kept, best, total, options.top_p);
  if (options.min_p > 0) {
    std::erase_if(kept, [&](const Candidate& candidate) { return candidate.score < least; });
  }
  if (tokens.empty()) return kept;
  for (Candidate& candidate : kept) candidate.id = tokens[candidate.id];
  return kept;
}

TokenId sample_token(std::span<const float> logits, const SamplingOptions& options,
                     uint32_t sequence, uint32_t position, std::span<const TokenId> tokens) {
  if (options.temperature == 0) {
    const TokenId likeliest = greedy_token(logits);
    return tokens.empty() ? likeliest : tokens[likeliest];
  }
  const CounterRandom random(options.seed, RandomPurpose::sample, sequence);
  if (options.top_k == 0 && options.top_p == 1 && options.min_p == 0) {
    return gumbel_max(logits, options.temperature, random, position, tokens);
  }
  std::vector<Candidate> kept = filter_logits(logits, options, tokens);
  for (Candidate& candidate : kept) candidate.score += random.gumbel(position, candidate.id);
  return std::min_element(kept.begin(), kept.end(), likelier)->id;
}

}  // namespace mambify
