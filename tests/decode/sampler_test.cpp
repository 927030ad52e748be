// What the filters keep against a brute-force definition, and the draws against the distribution.
#include "decode/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "core/error.h"
#include "core/random.h"

namespace mambify {
namespace {

std::vector<float> random_logits(size_t count, uint64_t seed, double spread = 3) {
  const CounterRandom random(seed, RandomPurpose::init);
  std::vector<float> logits(count);
  for (size_t i = 0; i < count; ++i) {
    logits[i] = static_cast<float>(spread * random.gumbel(0, static_cast<uint32_t>(i)));
  }
  return logits;
}

// The definition of each filter, on a full sort and with renormalised probabilities.
std::map<TokenId, double> brute_force(const std::vector<float>& logits,
                                      const SamplingOptions& options) {
  std::vector<std::pair<double, TokenId>> sorted;  // minus the probability, so that ties sort by id
  for (size_t i = 0; i < logits.size(); ++i) {
    sorted.emplace_back(-std::exp(logits[i] / options.temperature), static_cast<TokenId>(i));
  }
  std::ranges::sort(sorted);
  const auto renormalise = [&] {
    double total = 0;
    for (const auto& [probability, id] : sorted) total += probability;
    for (auto& [probability, id] : sorted) probability /= -total;
  };
  renormalise();
  if (options.top_k > 0 && static_cast<size_t>(options.top_k) < sorted.size()) {
    sorted.resize(options.top_k);
    renormalise();
  }
  double sum = 0;
  size_t kept = 0;
  const bool is_off = options.top_p == 1;  // a sum of many may be 1 before the last
  while (kept < sorted.size() && (is_off || sum < options.top_p)) sum -= sorted[kept++].first;
  sorted.resize(kept);
  renormalise();
  std::erase_if(sorted, [&, best = sorted.front().first](const auto& entry) {
    return -entry.first < options.min_p * -best;
  });
  renormalise();
  std::map<TokenId, double> result;
  for (const auto& [probability, id] : sorted) result[id] = -probability;
  return result;
}

const std::vector<SamplingOptions> kFilters = {
    {.temperature = 1},
    {.temperature = 0.7, .top_k = 5},
    {.temperature = 1.5, .top_k = 1000000},
    {.temperature = 1, .top_p = 0.9},
    {.temperature = 4, .top_p = 0.999},
    {.temperature = 1, .top_p = 1e-9},
    {.temperature = 1, .min_p = 0.05},
    {.temperature = 2, .top_k = 40, .top_p = 0.8, .min_p = 0.02},
};

TEST(Sampler, FiltersKeepWhatTheirDefinitionKeeps) {
  for (size_t size : {2, 31, 32, 33, 257, 5000, 50000}) {
    std::vector<float> logits = random_logits(size, size);
    // Many that are equal, as scores in bf16 are.
    if (size == 5000) std::ranges::for_each(logits, [](float& x) { x = std::round(x); });
    for (const SamplingOptions& options : kFilters) {
      std::set<TokenId> kept, expected;
      for (const Candidate& candidate : filter_logits(logits, options)) kept.insert(candidate.id);
      for (const auto& [id, probability] : brute_force(logits, options)) expected.insert(id);
      EXPECT_EQ(kept, expected) << size << " tokens, top-k " << options.top_k << ", top-p "
                                << options.top_p << ", min-p " << options.min_p;
    }
  }
}

TEST(Sampler, DrawsFollowTheFilteredDistribution) {
  constexpr int kDraws = 40000;
  const std::vector<float> logits = random_logits(48, 7, 1.5);
  uint64_t seed = 100;
  for (SamplingOptions options : kFilters) {
    options.seed = seed++;
    const std::map<TokenId, double> expected = brute_force(logits, options);
    std::map<TokenId, int> counts;
    for (int i = 0; i < kDraws; ++i) {
      ++counts[sample_token(logits, options, /*sequence=*/i % 3, /*position=*/i / 3)];
    }
    // Pearson's statistic over the tokens drawn often enough for it; the rest as one.
    double statistic = 0, rest = 0, rest_count = 0;
    int cells = 0;
    const auto add = [&](double wanted, double found) {
      statistic += (found - wanted) * (found - wanted) / wanted;
      ++cells;
    };
    for (const auto& [id, probability] : expected) {
      const double wanted = probability * kDraws;
      const double found = counts[id];
      if (wanted >= 10) {
        add(wanted, found);
      } else {
        rest += wanted;
        rest_count += found;
      }
    }
    if (rest >= 10) add(rest, rest_count);
    for (const auto& [id, count] : counts) EXPECT_TRUE(expected.contains(id)) << "token " << id;
    // A chi-square variable's mean is its degrees of freedom, its variance twice that.
    const double freedom = std::max(cells - 1, 1);
    EXPECT_LT(statistic, freedom + 5 * std::sqrt(2 * freedom)) << "case " << options.seed;
  }
}

TEST(Sampler, DrawIsTheArgmaxOfLogitsPlusGumbelNoise) {
  for (double temperature : {0.3, 1.0, 2.5}) {
    for (uint32_t position = 0; position < 200; ++position) {
      const std::vector<float> logits = random_logits(1003, position);
      const CounterRandom random(9, RandomPurpose::sample, 4);
      TokenId best = 0;
      double best_score = -std::numeric_limits<double>::infinity();
      for (size_t i = 0; i < logits.size(); ++i) {
        const double score =
            logits[i] / temperature + random.gumbel(position, static_cast<uint32_t>(i));
        if (score > best_score) {
          best = static_cast<TokenId>(i);
          best_score = score;
        }
      }
      EXPECT_EQ(sample_token(logits, {.temperature = temperature, .seed = 9}, 4, position), best);
      // A filter that keeps everything takes another path to the same token.
      EXPECT_EQ(
          sample_token(logits, {.temperature = temperature, .top_k = 2000, .seed = 9}, 4, position),
          best);
    }
  }
}

TEST(Sampler, TheLikeliestTokensProbabilityIsThatOfASoftmax) {
  for (const size_t count : {1, 31, 32, 33, 1000, 8192}) {
    std::vector<float> logits = random_logits(count, count);
    logits[count / 2] = -std::numeric_limits<float>::infinity();
    if (count == 1) logits[0] = 3;
    double total = 0;
    for (const float logit : logits) total += std::exp(static_cast<double>(logit));
    const double expected = std::exp(std::ranges::max(logits)) / total;
    EXPECT_NEAR(likeliest_probability(logits), expected, 1e-5 * expected) << count;
  }
}

// With and without filters, and where some of those are beside each other in fours and some are
// not.
TEST(Sampler, LogitsOfSomeTokensAreAsIfTheOthersWereImpossible) {
  const std::vector<float> all = random_logits(1003, 21);
  std::vector<float> some, rest_impossible(all.size(), -std::numeric_limits<float>::infinity());
  std::vector<TokenId> tokens;
  for (TokenId id = 0; id < 1003; ++id) {
    if (id % 7 > 3 && id % 64 != 0) continue;
    tokens.push_back(id);
    some.push_back(rest_impossible[id] = all[id]);
  }
  std::vector<SamplingOptions> samplings = kFilters;
  samplings.push_back({});  // greedy
  for (const SamplingOptions& options : samplings) {
    for (uint32_t position = 0; position < 200; ++position) {
      EXPECT_EQ(sample_token(some, options, 4, position, tokens),
                sample_token(rest_impossible, options, 4, position));
    }
  }
}

TEST(Sampler, NumbersDependOnSeedSequenceAndPosition) {
  const std::vector<float> logits(4096, 0.f);
  const auto draw = [&](uint64_t seed, uint32_t sequence, uint32_t position) {
    return sample_token(logits, {.temperature = 1, .seed = seed}, sequence, position);
  };
  EXPECT_EQ(draw(1, 2, 3), draw(1, 2, 3));
  EXPECT_NE(draw(1, 2, 3), draw(2, 2, 3));
  EXPECT_NE(draw(1, 2, 3), draw(1, 3, 3));
  EXPECT_NE(draw(1, 2, 3), draw(1, 2, 4));
}

TEST(Sampler, GreedyTakesTheLowestOfEqualTokens) {
  for (size_t size : {1, 2, 31, 32, 33, 100, 4097}) {
    for (size_t at = 0; at < size; at += 1 + size / 13) {
      std::vector<float> logits(size, -2.f);
      logits[at] = 5;
      EXPECT_EQ(greedy_token(logits), static_cast<TokenId>(at));
      logits.back() = 5;
      EXPECT_EQ(greedy_token(logits), static_cast<TokenId>(at));
    }
  }
  EXPECT_EQ(sample_token(std::vector<float>{1, 3, 3}, {}, 0, 0), 1);
}

// However low it is: scores are infinite then, those of less likely tokens, too.
TEST(Sampler, SomeTokenIsDrawnAtAnyTemperature) {
  const std::vector<float> logits = random_logits(1003, 5);
  for (const double temperature : {1e-3, 1e-20, 1e-38, 1e-40, 1e-300, 5e-324}) {
    for (SamplingOptions options : kFilters) {
      options.temperature = temperature;
      const TokenId token = sample_token(logits, options, /*sequence=*/0, /*position=*/0);
      EXPECT_GT(logits[token], 0) << temperature << ", top-k " << options.top_k << ", top-p "
                                  << options.top_p << ", min-p " << options.min_p;
    }
  }
}

TEST(Sampler, ForbiddenTokensAreNeverDrawn) {
  std::vector<float> logits(64, -std::numeric_limits<float>::infinity());
  logits[17] = -1;
  logits[40] = -1.5;
  for (uint32_t position = 0; position < 500; ++position) {
    const TokenId id = sample_token(logits, {.temperature = 1}, 0, position);
    EXPECT_TRUE(id == 17 || id == 40) << id;
  }
}

TEST(Sampler, LogitsWithoutANumberAreAnError) {
  const std::vector<float> logits(40, std::numeric_limits<float>::quiet_NaN());
  EXPECT_THROW(greedy_token(logits), Error);
  EXPECT_THROW(sample_token(logits, {.temperature = 1}, 0, 0), Error);
}

TEST(Sampler, OptionsOutOfRangeAreUsageErrors) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = -1}, SamplingOptions{.temperature = nan},
        SamplingOptions{.top_k = -1}, SamplingOptions{.top_p = 0}, SamplingOptions{.top_p = 1.1},
        SamplingOptions{.min_p = -0.1}, SamplingOptions{.min_p = nan}}) {
    EXPECT_THROW(options.check(), UsageError);
  }
}

}  // namespace
}  // namespace mambify
