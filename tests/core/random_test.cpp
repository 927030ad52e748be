#include "core/random.h"

#include <gtest/gtest.h>

#include <set>

namespace mambify {
namespace {

using Counter = std::array<uint32_t, 4>;
using Key = std::array<uint32_t, 2>;

// Known answers of Random123 (tests/kat_vectors, philox4x32 10).
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(CounterRandom, TakesTheSeedAsKeyAndTheCoordinatesAsCounter) {
  constexpr uint64_t kSeed = 0x0123456789abcdef;
  const CounterRandom random(kSeed, RandomPurpose::shuffle, /*sequence=*/7);
  const Key key{0x89abcdef, 0x01234567};
  for (uint32_t index = 0; index < 9; ++index) {
    EXPECT_EQ(random.bits(/*position=*/5, index), philox4x32({index / 4, 5, 7, 2}, key)[index % 4]);
  }
}

TEST(CounterRandom, EveryCoordinateChangesTheBits) {
  std::set<uint32_t> seen;
  size_t drawn = 0;
  for (const uint64_t seed : {uint64_t{1}, uint64_t{2}, uint64_t{1} << 32}) {
    for (const auto purpose : {RandomPurpose::sample, RandomPurpose::init, RandomPurpose::accept}) {
      for (const uint32_t sequence : {0u, 1u}) {
        const CounterRandom random(seed, purpose, sequence);
        for (const uint32_t position : {0u, 1u}) {
          for (uint32_t index = 0; index < 8; ++index, ++drawn) {
            seen.insert(random.bits(position, index));
          }
        }
      }
    }
  }
  EXPECT_EQ(seen.size(), drawn);
}

TEST(CounterRandom, UniformAndGumbelHaveTheirMoments) {
  const CounterRandom random(3, RandomPurpose::sample);
  constexpr int kDraws = 200'000;
  double uniform = 0, uniform_square = 0, gumbel = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = random.uniform(static_cast<uint32_t>(i), 11);
    ASSERT_GT(u, 0.0);
    ASSERT_LT(u, 1.0);
    uniform += u;
    uniform_square += u * u;
    gumbel += random.gumbel(static_cast<uint32_t>(i), 12);
  }
  // Five standard errors: 0.2887 / sqrt(n), 0.298 / sqrt(n), 1.2825 / sqrt(n).
  EXPECT_NEAR(uniform / kDraws, 0.5, 0.0033);
  EXPECT_NEAR(uniform_square / kDraws, 1.0 / 3, 0.0034);
  EXPECT_NEAR(gumbel / kDraws, 0.5772156649, 0.0144);
}

}  // namespace
}  // namespace mambify
