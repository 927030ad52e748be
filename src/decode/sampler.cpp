#include "decode/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/error.h"
#include "core/random.h"
#include "kernels/math.h"

namespace mambify {
namespace {

// Values side by side, which the compiler turns into vector registers.
constexpr size_t kLanes = 32;
constexpr float kLowest = -std::numeric_limits<float>::infinity();

// The largest value.
float largest(std::span<const float> values) {
  std::array<float, kLanes> lanes;
  lanes.fill(kLowest);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float value = values[i + lane];
      lanes[lane] = value > lanes[lane] ? value : lanes[lane];
    }
  }
  float result = *std::max_element(lanes.begin(), lanes.end());
  for (; i < values.size(); ++i) result = std::max(result, values[i]);
  return result;
}

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

void keep_top_p(std::vector<Candidate>& candidates, double best, double top_p) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += std::exp(candidate.score - best);
  // Tokens of less than their share of what may be left out are left out: all of them together
  // have less than 1 - top_p. What must be sorted are the few others.
  const double share = (1 - top_p) * total / static_cast<double>(candidates.size());
  const double floor = best + std::log(share);
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.score < floor; });
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

// A power of two above exp(x), within a factor of four of it. x: at most 0.
float power_of_two_above_exp(float x) {
  const float exponent = std::max(x * std::numbers::log2e_v<float>, -120.f);
  // Truncation rounds a negative number up; one more covers the rounding of the product.
  return std::bit_cast<float>((static_cast<int32_t>(exponent) + 1 + 127) << 23);
}

// argmax of score + Gumbel noise over the tokens token_of(0) < token_of(1) < ... of the logits, as
// sample_token defines it. The noise of nearly every token cannot lift it over the best one so far,
// and random bits are enough to tell: -log(-log u) <= -log(1 - u), so score - log(1 - u) < best
// rules it out.
template <typename TokenOf>
TokenId gumbel_max_of_all(std::span<const float> logits, double temperature,
                          const CounterRandom& random, uint32_t position, size_t likeliest,
                          const TokenOf& token_of) {
  const auto noisy = [&](size_t i) {
    return static_cast<double>(logits[i]) / temperature + random.gumbel(position, token_of(i));
  };
  Candidate best{token_of(likeliest), noisy(likeliest)};
  std::array<uint32_t, 4> bits{};
  TokenId bits_of = -1;
  for (size_t i = 0; i < logits.size(); ++i) {
    const TokenId id = token_of(i);
    if (id / 4 != bits_of) bits = random.four_bits(position, bits_of = id / 4);
    if (!(logits[i] > kLowest)) continue;
    const double behind = static_cast<double>(logits[i]) / temperature - best.score;
    if (behind < 0) {
      const double complement = 1 - CounterRandom::to_uniform(bits[id % 4]);
      if (complement > power_of_two_above_exp(static_cast<float>(behind))) continue;
    }
    const Candidate candidate{id, noisy(i)};
    if (likelier(candidate, best)) best = candidate;
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
  const float maximum = largest(logits);
  const auto found = std::find(logits.begin(), logits.end(), maximum);
  if (found == logits.end() || maximum == kLowest) {
    throw Error("the model's logits hold no number to choose a token by");
  }
  return static_cast<TokenId>(found - logits.begin());
}

double likeliest_probability(std::span<const float> logits) {
  const float best = largest(logits);
  std::array<float, kLanes> lanes{};
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += kernels::fast_exp(logits[i + lane] - best);
    }
  }
  float total = 0;
  for (const float sum : lanes) total += sum;
  for (; i < logits.size(); ++i) total += kernels::fast_exp(logits[i] - best);
  return 1 / static_cast<double>(total);
}

std::vector<Candidate> filter_logits(std::span<const float> logits, const SamplingOptions& options,
                                     std::span<const TokenId> tokens) {
  const double best = logits[greedy_token(logits)] / options.temperature;
  std::vector<Candidate> kept;
  kept.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > kLowest) {
      const TokenId id = tokens.empty() ? static_cast<TokenId>(i) : tokens[i];
      kept.push_back({id, logits[i] / options.temperature});
    }
  }
  if (options.top_k > 0) {
    sort_front(kept, static_cast<size_t>(options.top_k));
    kept.resize(std::min(kept.size(), static_cast<size_t>(options.top_k)));
  }
  if (options.top_p < 1) keep_top_p(kept, best, options.top_p);
  if (options.min_p > 0) {
    const double floor = best + std::log(options.min_p);
    std::erase_if(kept, [&](const Candidate& candidate) { return candidate.score < floor; });
  }
  return kept;
}

TokenId sample_token(std::span<const float> logits, const SamplingOptions& options,
                     uint32_t sequence, uint32_t position, std::span<const TokenId> tokens) {
  const TokenId likeliest = greedy_token(logits);
  if (options.temperature == 0) return tokens.empty() ? likeliest : tokens[likeliest];
  const CounterRandom random(options.seed, RandomPurpose::sample, sequence);
  if (options.top_k == 0 && options.top_p == 1 && options.min_p == 0) {
    const auto draw = [&](const auto& token_of) {
      return gumbel_max_of_all(logits, options.temperature, random, position, likeliest, token_of);
    };
    return tokens.empty() ? draw([](size_t i) { return static_cast<TokenId>(i); })
                          : draw([&](size_t i) { return tokens[i]; });
  }
  std::vector<Candidate> kept = filter_logits(logits, options, tokens);
  for (Candidate& candidate : kept) candidate.score += random.gumbel(position, candidate.id);
  return std::min_element(kept.begin(), kept.end(), likelier)->id;
}

}  // namespace mambify
