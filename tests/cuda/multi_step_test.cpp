// The multi-step kernels against their definition, over passes as an engine makes them, and against
// themselves: no bit depends on how tokens are divided into passes, on drafts that were refused, or
// on what else is in a pass.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/multi_step/params.h"
#include "multi_step_layers.h"
#include "numerics.h"
#include "tolerances.h"

namespace mambify::kernels {
namespace {

using namespace multi_step_testing;

template <typename T>
const char* dtype() {
  return std::is_same_v<T, Bf16> ? "bf16" : "fp32";
}

template <typename T>
std::vector<float> floats(const std::vector<T>& values) {
  std::vector<float> result;
  for (const T value : values) result.push_back(to_float(value));
  return result;
}

// The layers that both tests go through: sizes that have a kernel of their own, and tiny or odd
// ones.
template <typename T>
std::vector<std::pair<std::string, MakeLayer<T>>> layers() {
  std::vector<std::pair<std::string, MakeLayer<T>>> all;
  const auto mamba2 = [&](const char* name, const Mamba2Shape& shape) {
    all.emplace_back(name, [=](int64_t rows) { return make_mamba2<T>(shape, rows); });
  };
  const auto mamba1 = [&](const char* name, const Mamba1Shape& shape) {
    all.emplace_back(name, [=](int64_t rows) { return make_mamba1<T>(shape, rows); });
  };
  mamba2("mamba2 tiny", {4, 16, 8, 2, 1, 4});
  mamba2("mamba2 odd, clamped", {3, 23, 19, 3, 1, 1, 3, true, false, 0.05f, 0.4f});
  mamba2("mamba2 tiny, rotary, not activated", {4, 16, 16, 2, 2, 4, 4, false, true});
  mamba2("mamba2 64", {3, 64, 64, 1, 1, 3});
  mamba2("mamba2 64, rotary, narrow convolution", {2, 40, 64, 1, 2, 2, 2, true, true});
  mamba2("mamba2 128", {4, 128, 128, 2, 2, 4});
  mamba2("mamba2 128, rotary, narrow head", {2, 50, 128, 2, 1, 1, 4, true, true});
  // One sequence's heads are divided among more blocks than several sequences' are.
  mamba2("mamba2 128, many heads", {40, 50, 128, 8, 4, 40});
  mamba1("mamba1 tiny", {48, 24, 8, 3, 6});
  mamba1("mamba1 odd", {65, 65, 13, 5, 1, 3});
  mamba1("mamba1 16", {72, 72, 16, 1, 1});
  mamba1("mamba1 16, repeated", {160, 80, 16, 5, 10});
  mamba1("mamba1 64", {256, 128, 64, 2, 4, 2});
  mamba1("mamba1 128", {256, 128, 128, 1, 2});
  mamba1("mamba1 128, odd shares", {15, 15, 128, 5, 3});
  for (const int64_t d_conv : {1, 4}) {
    all.emplace_back("convolution", [=](int64_t rows) { return make_conv<T>(70, d_conv, rows); });
  }
  return all;
}

// Where a sequence is.
struct Place {
  int base = 0, pending = 0;
};

class MultiStep : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  }
  int random(int first, int last) {
    return std::uniform_int_distribution<int>(first, last)(engine_);
  }

  // Passes with several sequences each, of which some are empty, some only replay, some are new.
  template <typename T>
  void compare_with_definition() {
    const double bound = testing::tolerance("cuda", dtype<T>()).output;
    for (const auto& [name, make] : layers<T>()) {
      SCOPED_TRACE(name);
      constexpr int kRows = 4;
      Layer<T> layer = make(kRows);
      std::vector<Place> places(kRows);
      for (int pass = 0; pass < 14; ++pass) {
        SCOPED_TRACE("pass " + std::to_string(pass));
        std::vector<PassSequence> sequences(1);  // the first place stays empty
        int tokens = 0;
        for (int row = kRows - 1; row >= 0; --row) {
          Place& place = places[row];
          if (random(0, 4) == 0) continue;
          const int fresh = pass == 5 && row == 1 ? 64 : random(0, 9);
          for (int i = 0; i < fresh; ++i) {
            layer.feed(row, place.base + place.pending + i, row);
          }
          const int total = place.pending + fresh;
          const int commit = total > 16 ? total - random(0, 8) : random(0, total);
          sequences.push_back({row, tokens, fresh, place.base, place.pending, commit});
          tokens += fresh;
          place.base += commit;
          place.pending = total - commit;
        }
        const std::vector<T> expected = layer.run_on_host(sequences, tokens);
        const std::vector<T> actual = layer.run_on_device(sequences, tokens);
        if (tokens > 0) {
          ASSERT_LT(testing::max_relative_error(floats(actual), floats(expected)), bound);
        }
        // Rows that no pass has committed yet are as they were, NaN.
        const std::vector<float> state = layer.state.download();
        for (int row = 0; row < kRows && layer.state_size > 0; ++row) {
          const auto begin = row * layer.state_size;
          const std::span<const float> on_device(state.data() + begin, layer.state_size);
          const std::span<const float> on_host(layer.state.host.data() + begin, layer.state_size);
          if (places[row].base == 0) {
            ASSERT_TRUE(std::isnan(on_device.front()) && std::isnan(on_device.back()));
          } else {
            ASSERT_LT(testing::max_relative_error(on_device, on_host), bound) << "row " << row;
          }
        }
      }
    }
  }

  // The same 40 tokens one at a time, alone, and in passes of any length with drafts that are
  // refused, in another row beside other sequences.
  template <typename T>
  void compare_divisions() {
    constexpr int kTokens = 40, kStream = 77, kRows = 6;
    for (const auto& [name, make] : layers<T>()) {
      SCOPED_TRACE(name);
      Layer<T> alone = make(1);
      std::vector<T> expected;
      for (int t = 0; t < kTokens; ++t) {
        alone.feed(0, t, kStream);
        // The token before this one is pending.
        const int pending = t > 0;
        const std::vector<T> y =
            alone.run_on_device({{0, 0, 1, t - pending, pending, pending}}, /*tokens=*/1);
        expected.insert(expected.end(), y.begin(), y.end());
      }
      alone.run_on_device({{0, 0, 0, kTokens - 1, 1, 1}}, /*tokens=*/0);
      const std::vector<float> expected_state = alone.state.download();

      for (int trial = 0; trial < 4; ++trial) {
        SCOPED_TRACE("trial " + std::to_string(trial));
        const int row = random(0, kRows - 1);
        Layer<T> layer = make(kRows);
        std::vector<Place> places(kRows);
        std::vector<T> y;
        while (places[row].base + places[row].pending < kTokens) {
          std::vector<PassSequence> sequences;
          int tokens = 0, own_first = 0, own_accepted = 0;
          for (int r = 0; r < kRows; ++r) {
            Place& place = places[r];
            if (r != row && random(0, 3) == 0) {
              sequences.push_back({});
              continue;
            }
            const int next = place.base + place.pending;
            const int longest = trial == 3 ? 40 : 9;
            const int accepted = std::min(random(1, longest), r == row ? kTokens - next : 64);
            const int refused = random(0, 5);
            for (int i = 0; i < accepted + refused; ++i) {
              const int stream = (r == row ? kStream : r) + (i < accepted ? 0 : 500);
              layer.feed(r, next + i, stream);
            }
            const int certain = place.pending + accepted;
            const int commit = random(std::max(0, certain - 8), certain);
            sequences.push_back({r, tokens, accepted + refused, place.base, place.pending, commit});
            if (r == row) own_first = tokens, own_accepted = accepted;
            tokens += accepted + refused;
            place.base += commit;
            place.pending = certain - commit;
          }
          const std::vector<T> all = layer.run_on_device(sequences, tokens);
          y.insert(y.end(), all.begin() + own_first * layer.y_width,
                   all.begin() + (own_first + own_accepted) * layer.y_width);
        }
        const Place place = places[row];
        layer.run_on_device({{}, {row, 0, 0, place.base, place.pending, place.pending}},
                            /*tokens=*/0);
        ASSERT_EQ(y.size(), expected.size());
        EXPECT_EQ(std::memcmp(y.data(), expected.data(), y.size() * sizeof(T)), 0);
        const std::vector<float> state = layer.state.download();
        EXPECT_EQ(std::memcmp(state.data() + row * layer.state_size, expected_state.data(),
                              layer.state_size * sizeof(float)),
                  0);
      }
    }
  }

 private:
  std::mt19937 engine_{5};
};

TEST_F(MultiStep, AgreesWithItsDefinitionInFp32) { compare_with_definition<float>(); }
TEST_F(MultiStep, AgreesWithItsDefinitionInBf16) { compare_with_definition<Bf16>(); }
TEST_F(MultiStep, HasTheSameBitsHoweverTokensAreDividedInFp32) { compare_divisions<float>(); }
TEST_F(MultiStep, HasTheSameBitsHoweverTokensAreDividedInBf16) { compare_divisions<Bf16>(); }

TEST_F(MultiStep, RefusesSizesBeyondItsLimits) {
  EXPECT_ANY_THROW(make_mamba2<float>({1, 16, 129, 1, 1, 1}, 1).run_on_device({{}}, 0));
  EXPECT_ANY_THROW(make_mamba2<float>({1, 129, 16, 1, 1, 1}, 1).run_on_device({{}}, 0));
  EXPECT_ANY_THROW(make_mamba1<float>({160, 160, 160, 1, 1}, 1).run_on_device({{}}, 0));
  EXPECT_ANY_THROW(make_conv<float>(8, 5, 1).run_on_device({{}}, 0));
}

}  // namespace
}  // namespace mambify::kernels
