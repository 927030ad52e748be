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

// Turns counters, [4][kCount], into 128 random bits each of (counter, key).
template <size_t kCount>
[[gnu::always_inline]] constexpr void philox4x32(
    std::array<std::array<uint32_t, kCount>, 4>& counters, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  auto& [c0, c1, c2, c3] = counters;
  for (int round = 0; round < 10; ++round) {
    for (size_t i = 0; i < kCount; ++i) {
      const uint64_t product0 = kMultiplier0 * c0[i], product1 = kMultiplier1 * c2[i];
      c0[i] = static_cast<uint32_t>(product1 >> 32) ^ c1[i] ^ key[0];
      c1[i] = static_cast<uint32_t>(product1);
      c2[i] = static_cast<uint32_t>(product0 >> 32) ^ c3[i] ^ key[1];
      c3[i] = static_cast<uint32_t>(product0);
    }
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
}
constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter,
                                             std::array<uint32_t, 2> key) {
  std::array<std::array<uint32_t, 1>, 4> counters{
      {{counter[0]}, {counter[1]}, {counter[2]}, {counter[3]}}};
  philox4x32(counters, key);
  return {counters[0][0], counters[1][0], counters[2][0], counters[3][0]};
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

  // The same of q to q + kCount - 1, in order: loops that vectorise.
  template <uint32_t kCount>
  [[gnu::always_inline]] void many_bits(uint32_t position, uint32_t q,
                                        std::array<uint32_t, 4 * kCount>& bits) const {
    std::array<std::array<uint32_t, kCount>, 4> counters;
    for (uint32_t i = 0; i < kCount; ++i) {
      counters[0][i] = q + i, counters[1][i] = position;
      counters[2][i] = sequence_, counters[3][i] = purpose_;
    }
    philox4x32(counters, key_);
    for (uint32_t i = 0; i < kCount; ++i) {
      for (uint32_t j = 0; j < 4; ++j) bits[4 * i + j] = counters[j][i];
    }
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
