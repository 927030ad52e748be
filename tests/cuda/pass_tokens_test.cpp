#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "device_values.h"
#include "kernels/pass_linear/params.h"
#include "kernels/pass_tokens/params.h"

namespace mambify::kernels {
namespace {

using testing::on_device;

template <typename T>
T stored(float x) {
  T place;
  store(x, place);
  return place;
}

// Scores of some rows, and how they are drawn from.
template <typename T>
struct Rows {
  int64_t outputs;
  std::vector<PassDraw> draws;
  std::vector<T> scores;             // [rows, padded(outputs)]
  std::vector<int32_t> tokens = {};  // of the outputs; empty: all

  int64_t stride() const { return padded(outputs); }
  float score(size_t row, int64_t i) const { return to_float(scores[row * stride() + i]); }
  int32_t token(int64_t i) const { return tokens.empty() ? static_cast<int32_t>(i) : tokens[i]; }
};

template <typename T>
std::vector<int32_t> drawn_on_device(const Rows<T>& rows) {
  const auto n = static_cast<int64_t>(rows.draws.size());
  const DeviceMemory scores = on_device(rows.scores), draws = on_device(rows.draws);
  const DeviceMemory tokens = rows.tokens.empty() ? DeviceMemory() : on_device(rows.tokens);
  const DeviceMemory scratch(pass_draw_scratch_bytes(n));
  const DeviceMemory ids(n * 4);
  const CudaStream stream = create_cuda_stream();
  for (int launch = 0; launch < 2; ++launch) {  // scratch is as it was after the first
    pass_draw_cuda<T>({.rows = n,
                       .outputs = rows.outputs,
                       .tokens = tokens.as<int32_t>(),
                       .scores = scores.template as<T>(),
                       .stride = rows.stride(),
                       .draws = draws.template as<PassDraw>(),
                       .scratch = scratch.as<void>(),
                       .ids = ids.as<int32_t>()},
                      stream);
  }
  synchronise(stream);
  destroy_cuda_stream(stream);
  std::vector<int32_t> drawn(n);
  ids.read(drawn.data(), ids.bytes());
  return drawn;
}

template <typename T>
int32_t drawn_on_host(const Rows<T>& rows, size_t row) {
  const PassDraw& draw = rows.draws[row];
  const CounterRandom random(draw.seed, RandomPurpose::sample, draw.sequence);
  int32_t best = -1;
  double most = 0;
  for (int64_t i = 0; i < rows.outputs; ++i) {
    double score = rows.score(row, i);
    if (!(score > -std::numeric_limits<double>::infinity())) continue;
    const int32_t token = rows.token(i);
    if (draw.temperature > 0) {
      score = score / draw.temperature + random.gumbel(draw.position, static_cast<uint32_t>(token));
    }
    if (best >= 0 && !(score > most)) continue;
    best = token;
    most = score;
  }
  return best;
}

template <typename T>
class PassDrawCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
    use_cuda_device(0);
  }

  static void expect_host_draws(const Rows<T>& rows) {
    const std::vector<int32_t> drawn = drawn_on_device(rows);
    for (size_t row = 0; row < rows.draws.size(); ++row) {
      EXPECT_EQ(drawn[row], drawn_on_host(rows, row))
          << "row " << row << ", temperature " << rows.draws[row].temperature;
    }
  }
};

using Types = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(PassDrawCuda, Types);

// Random scores of a given spread, drawn from at every kind of temperature; places that fill a row
// up hold scores that would win.
template <typename T>
Rows<T> random_rows(int64_t count, int64_t outputs, float spread) {
  Rows<T> rows{.outputs = outputs, .draws = {}, .scores = {}};
  const std::vector<float> values = testing::random_values<float>(count * rows.stride(), 5);
  for (int64_t i = 0; i < count * rows.stride(); ++i) {
    rows.scores.push_back(stored<T>(i % rows.stride() < outputs ? values[i] * spread : 1e30f));
  }
  const double temperatures[] = {1, 0, 0.3, 5, 1e-6, 1e4};
  for (int64_t row = 0; row < count; ++row) {
    rows.draws.push_back({.temperature = temperatures[row % 6],
                          .seed = 0x123456789abcull,
                          .sequence = static_cast<uint32_t>(row),
                          .position = static_cast<uint32_t>(row * 7)});
  }
  return rows;
}

TYPED_TEST(PassDrawCuda, AreThoseOfTheHost) {
  for (const int64_t vocabulary : {1, 3, 50, 1023, 49152}) {
    for (const int64_t count : {1, 12, 70, 1100}) {
      if (vocabulary * count > 1 << 22) continue;
      for (const float spread : {0.1f, 8.0f}) {
        SCOPED_TRACE("vocabulary " + std::to_string(vocabulary) + ", rows " +
                     std::to_string(count) + ", spread " + std::to_string(spread));
        this->expect_host_draws(random_rows<TypeParam>(count, vocabulary, spread));
      }
    }
  }
}

TYPED_TEST(PassDrawCuda, OfSomeTokensHaveTheNumbersOfTheseTokens) {
  for (const int64_t outputs : {1, 3, 50, 1023, 8192}) {
    SCOPED_TRACE("outputs " + std::to_string(outputs));
    Rows<TypeParam> rows = random_rows<TypeParam>(12, outputs, /*spread=*/0.1f);
    for (int32_t token = 0; std::ssize(rows.tokens) < outputs; ++token) {
      if (token % 7 < 4 || token % 64 == 0) rows.tokens.push_back(token);
    }
    for (int32_t& token : rows.tokens) token += 5;
    this->expect_host_draws(rows);
  }
}

TYPED_TEST(PassDrawCuda, OfScoresThatAreNoOrdinaryNumbers) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> cases[] = {
      {kNone, -kInfinity, -3.0f, kNone}, {kNone, -kInfinity},      {1.0f, kInfinity, kInfinity},
      {-1.0f, -0.0f, 0.0f, -0.0f},       {-3e38f, -3.1e38f},       {3e38f, 2.9e38f},
      {2.0f, 7.0f, 7.0f, 1.0f, 7.0f},    {-kInfinity, -kInfinity},
  };
  for (const std::vector<float>& scores : cases) {
    Rows<TypeParam> rows{.outputs = static_cast<int64_t>(scores.size()), .draws = {}, .scores = {}};
    for (const double temperature : {0.0, 1.0, 0.01}) {
      rows.draws.push_back({.temperature = temperature, .seed = 3});
      for (int64_t i = 0; i < rows.stride(); ++i) {
        const bool exists = i < rows.outputs;
        rows.scores.push_back(stored<TypeParam>(exists ? scores[i] : kInfinity));
      }
    }
    SCOPED_TRACE("first score " + std::to_string(scores.front()));
    this->expect_host_draws(rows);
  }
}

TYPED_TEST(PassDrawCuda, RefuseScoresThatAreNotAligned) {
  const PassDrawParams<TypeParam> p{.rows = 1, .outputs = 3, .stride = 3};
  EXPECT_THROW(pass_draw_cuda(p, nullptr), Error);
}

}  // namespace
}  // namespace mambify::kernels
