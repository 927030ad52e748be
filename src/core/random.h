// Counter-based random numbers: a value is a function of its coordinates, never of how many were
// drawn before, so that a resumed run and a speculative decoder see the same ones.
// Philox4x32-10 of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace mambify {

// What a number is drawn for; keeps the streams of one position apart.
enum class RandomPurpose : uint32_t { sample = 0, init = 1, shuffle = 2, accept = 3, redraw = 4 };

// 128 random bits of (counter, key).
constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter,
                                             std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0], product1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

// A generator addressed by (seed, purpose, sequence); `at(position, index)` is a pure function.
class CounterRandom {
 public:
  CounterRandom(uint64_t seed, RandomPurpose purpose, uint32_t sequence = 0)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
        purpose_(static_cast<uint32_t>(purpose)),
        sequence_(sequence) {}

  // 32 random bits for a position in the sequence and an index within it (a token id).
  uint32_t bits(uint32_t position, uint32_t index) const {
    return four_bits(position, index >> 2)[index & 3];
  }
  // The bits of indices 4 q to 4 q + 3 at the price of one.
  std::array<uint32_t, 4> four_bits(uint32_t position, uint32_t q) const {
    return philox4x32({q, position, sequence_, purpose_}, key_);
  }

  // Uniform in the open interval (0, 1): neither log(u) nor log(1 - u) is infinite.
  double uniform(uint32_t position, uint32_t index) const {
    return to_uniform(bits(position, index));
  }
  static double to_uniform(uint32_t bits) { return (bits + 0.5) * 0x1p-32; }

  // Standard Gumbel: argmax of log p + gumbel draws from p.
  double gumbel(uint32_t position, uint32_t index) const {
    return -std::log(-std::log(uniform(position, index)));
  }

 private:
  std::array<uint32_t, 2> key_;
  uint32_t purpose_, sequence_;
};

}  // namespace mambify
