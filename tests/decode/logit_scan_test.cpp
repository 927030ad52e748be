// Passes over rows of logits against loops over one logit after the other.
#include "decode/logit_scan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

namespace mambify {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Some are no numbers.
std::vector<float> random_logits(size_t count, double spread) {
  const CounterRandom random(count, RandomPurpose::init);
  std::vector<float> logits(count);
  for (size_t i = 0; i < count; ++i) {
    logits[i] = static_cast<float>(spread * random.gumbel(0, static_cast<uint32_t>(i)));
    if (i % 97 == 5) logits[i] = i % 2 == 0 ? kNan : kNoLogit;
  }
  return logits;
}

constexpr size_t kSizes[] = {1, 31, 32, 33, 255, 256, 257, 2049, 50000};

TEST(LogitScan, SumsExponentialsOfNumbers) {
  for (const size_t size : kSizes) {
    for (const double temperature : {0.05, 0.8, 30.0}) {
      const std::vector<float> logits = random_logits(size, 3);
      const float best = largest_logit(logits);
      double expected = 0;
      for (const float logit : logits) {
        if (logit > kNoLogit) expected += std::exp((logit - best) / temperature);
      }
      EXPECT_NEAR(sum_of_exponentials(logits, best, temperature), expected, 1e-5 * expected)
          << size << " logits at " << temperature;
    }
  }
}

TEST(LogitScan, VisitsWhatIsAboveAFloorThatRises) {
  for (const size_t size : kSizes) {
    const std::vector<float> logits = random_logits(size, 3);
    std::vector<size_t> expected, visited;
    float rising = kNoLogit;
    for (size_t i = 0; i < size; ++i) {
      if (logits[i] > rising) expected.push_back(i), rising = logits[i];
    }
    float floor = kNoLogit;
    for_each_above(logits, floor, [&](size_t i) {
      visited.push_back(i);
      floor = logits[i];
    });
    EXPECT_EQ(visited, expected) << size << " logits";
  }
}

TEST(LogitScan, BitsOfABlockAreThoseOfItsTokens) {
  const CounterRandom random(3, RandomPurpose::sample, /*sequence=*/7);
  for (const uint32_t first : {0u, 256u, 128000u}) {
    const LogitBits bits = bits_of_block(random, /*position=*/11, first);
    for (uint32_t i = 0; i < kLogitBlock; ++i) EXPECT_EQ(bits[i], random.bits(11, first + i));
  }
}

// Whoever is lifted above the best is a contender, at any scale of the scores; few others are.
TEST(LogitScan, ContendersAreAllThatNoiseMayLiftAboveTheBest) {
  constexpr uint32_t kVocabulary = 50000;
  const std::vector<float> logits = random_logits(kVocabulary, 3);
  for (const double temperature : {1e-30, 1e-4, 0.01, 0.8, 20.0, 1e6}) {
    const CounterRandom random(5, RandomPurpose::sample);
    size_t contenders = 0, lifted = 0;
    for (uint32_t position = 0; position < 20; ++position) {
      const double best = largest_logit(logits) / temperature + random.gumbel(position, 0);
      for (uint32_t begin = 0; begin < kVocabulary; begin += kLogitBlock) {
        const size_t size = std::min<size_t>(kLogitBlock, kVocabulary - begin);
        const Contenders found =
            find_contenders(std::span(logits).subspan(begin, size),
                            bits_of_block(random, position, begin), temperature, best);
        contenders += found.count;
        std::vector<bool> is_contender(size, false);
        for (size_t n = 0; n < found.count; ++n) is_contender[found.places[n]] = true;
        for (uint32_t i = 0; i < size; ++i) {
          const double score = logits[begin + i] / temperature + random.gumbel(position, begin + i);
          if (!(score > best)) continue;
          ++lifted;
          EXPECT_TRUE(is_contender[i]) << "token " << begin + i << " at " << temperature;
        }
      }
    }
    const bool is_usual = temperature > 0.001 && temperature < 1;
    EXPECT_TRUE(!is_usual || contenders < 20 * kVocabulary / 10) << contenders;
    EXPECT_TRUE(temperature < 0.8 || lifted > 0) << temperature;
  }
}

}  // namespace
}  // namespace mambify
