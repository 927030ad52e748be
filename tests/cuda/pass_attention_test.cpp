#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "attention_layer.h"
#include "core/error.h"
#include "device_values.h"
#include "kernels/pass_attention/params.h"

namespace mambify::kernels {
namespace {

using namespace attention_testing;
using testing::max_relative_error;
using testing::same_bits;
using testing::tolerance;

template <typename T>
constexpr const char* dtype_name() {
  return std::is_same_v<T, float> ? "fp32" : "bf16";
}

const Shape kShapes[] = {{9, 3, 64}, {32, 8, 128}, {4, 2, 16}, {6, 1, 96}};

template <typename T>
class PassAttentionCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
    use_cuda_device(0);
  }
};

using Types = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(PassAttentionCuda, Types);

// One pass and its definition: outputs within tolerance, caches of the same bits.
template <typename T>
void expect_reference(const Shape& shape, const std::vector<PassSequence>& sequences, int64_t rows,
                      int64_t capacity) {
  SCOPED_TRACE("heads " + std::to_string(shape.heads) + "/" + std::to_string(shape.kv_heads) +
               " x " + std::to_string(shape.head_dim));
  Caches<T> caches = empty_caches<T>(shape, rows, capacity);
  int64_t tokens = 0;
  for (const PassSequence& s : sequences) {
    fill(caches, shape, s.row, capacity, s.base + s.pending, s.row + 1);
    tokens = std::max<int64_t>(tokens, s.first + s.tokens);
  }
  const std::vector<T> qkv = random_qkv<T>(shape, tokens, 7);
  Layer<T> layer(shape, caches, capacity);
  const std::vector<T> actual = layer.pass(sequences, qkv);

  const Angles angles(shape.head_dim);
  std::vector<T> expected(tokens * shape.y_width());
  PassAttentionParams<T> p = params_of<T>(shape, sequences, capacity);
  p.sequences = sequences.data();
  p.qkv = qkv.data();
  p.cos = angles.cos.data();
  p.sin = angles.sin.data();
  p.keys = caches.keys.data();
  p.values = caches.values.data();
  p.y = expected.data();
  pass_attention_reference(p);
  EXPECT_LE(max_relative_error(widened(actual), widened(expected)),
            tolerance("cuda", dtype_name<T>()).output);
  const Caches<T> after = layer.caches();
  EXPECT_TRUE(same_bits(after.keys, caches.keys));
  EXPECT_TRUE(same_bits(after.values, caches.values));
}

TYPED_TEST(PassAttentionCuda, MatchesTheReferenceAtEveryLength) {
  for (const Shape& shape : kShapes) {
    int32_t tokens = 1;
    for (const int32_t length : {1, 3, 63, 64, 65, 255, 256, 257, 500, 2000}) {
      SCOPED_TRACE("length " + std::to_string(length));
      const int32_t read = std::min(length, tokens);
      expect_reference<TypeParam>(
          shape, {{.row = 0, .first = 0, .tokens = read, .base = length - read}}, 1, length);
      tokens = tokens % 5 + 1;
    }
  }
}

TYPED_TEST(PassAttentionCuda, MatchesTheReferenceAtEveryNumberOfTokens) {
  for (const Shape& shape : kShapes) {
    for (const int32_t tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 64}) {
      SCOPED_TRACE("tokens " + std::to_string(tokens));
      // Across the border of two splits.
      expect_reference<TypeParam>(
          shape, {{.row = 0, .first = 0, .tokens = tokens, .base = 250, .pending = 3}}, 1, 320);
    }
  }
}

TYPED_TEST(PassAttentionCuda, MatchesTheReferenceWithSeveralSequences) {
  for (const Shape& shape : kShapes) {
    expect_reference<TypeParam>(shape,
                                {{.row = 4, .first = 3, .tokens = 2, .base = 700, .pending = 4},
                                 {},
                                 {.row = 1, .first = 0, .tokens = 3, .base = 0},
                                 {.row = 2, .first = 5, .tokens = 0, .base = 40, .pending = 2},
                                 {.row = 0, .first = 5, .tokens = 16, .base = 500, .pending = 1},
                                 {}},
                                5, 777);
  }
}

// More parts than one group of them holds.
TYPED_TEST(PassAttentionCuda, MatchesTheReferenceWithSeveralGroupsOfParts) {
  const Shape shape{4, 2, 16};
  const auto border = static_cast<int32_t>(kAttentionSplit * kAttentionGroup);
  Shape long_shape = shape;
  expect_reference<TypeParam>(long_shape, {{.row = 0, .first = 0, .tokens = 5, .base = border - 6}},
                              1, border);
}

// What 30 tokens behind `base` others give, in chunks of these sizes.
template <typename T>
struct Read {
  std::vector<T> y;
  Caches<T> caches;
};

constexpr int32_t kTokens = 30;

template <typename T>
Read<T> read_in_chunks(const Shape& shape, int32_t base, const std::vector<int32_t>& chunks) {
  const int64_t capacity = base + kTokens;
  Caches<T> caches = empty_caches<T>(shape, 1, capacity);
  fill(caches, shape, 0, capacity, base, 3);
  const std::vector<T> qkv = random_qkv<T>(shape, kTokens, 5);
  Layer<T> layer(shape, caches, capacity);
  Read<T> read;
  int32_t done = 0;
  for (const int32_t tokens : chunks) {
    const int32_t pending = std::min(done, 2);
    const auto begin = qkv.begin() + done * shape.qkv_width();
    const std::vector<T> y = layer.pass({{.row = 0,
                                          .first = 0,
                                          .tokens = tokens,
                                          .base = base + done - pending,
                                          .pending = pending}},
                                        {begin, begin + tokens * shape.qkv_width()});
    read.y.insert(read.y.end(), y.begin(), y.end());
    done += tokens;
  }
  read.caches = layer.caches();
  return read;
}

TYPED_TEST(PassAttentionCuda, BitsDoNotDependOnThePass) {
  std::mt19937 random(11);
  for (const Shape& shape : kShapes) {
    for (const int32_t base : {0, 50, 240, 4082}) {
      SCOPED_TRACE("head_dim " + std::to_string(shape.head_dim) + ", behind " +
                   std::to_string(base));
      if (base > 1000 && shape.heads > 9) continue;
      const auto alone = read_in_chunks<TypeParam>(shape, base, std::vector<int32_t>(kTokens, 1));
      for (int trial = 0; trial < 4; ++trial) {
        std::vector<int32_t> chunks;
        for (int32_t left = kTokens; left > 0; left -= chunks.back()) {
          chunks.push_back(trial == 0 ? left : std::min<int32_t>(left, 1 + random() % 12));
        }
        const auto together = read_in_chunks<TypeParam>(shape, base, chunks);
        EXPECT_TRUE(same_bits(together.y, alone.y));
        EXPECT_TRUE(same_bits(together.caches.keys, alone.caches.keys));
        EXPECT_TRUE(same_bits(together.caches.values, alone.caches.values));
      }
    }
  }
}

// Two tokens of row 1 in a pass alone, and between other sequences with more splits.
TYPED_TEST(PassAttentionCuda, BitsDoNotDependOnOtherSequences) {
  for (const Shape& shape : kShapes) {
    const int64_t capacity = 1500;
    Caches<TypeParam> caches = empty_caches<TypeParam>(shape, 3, capacity);
    for (int64_t row = 0; row < 3; ++row) fill(caches, shape, row, capacity, 1400 - 500 * row, row);
    const auto qkv = random_qkv<TypeParam>(shape, 9, 5);
    const auto y_of = [&](const std::vector<TypeParam>& y, int64_t first) {
      const auto begin = y.begin() + first * shape.y_width();
      return std::vector<TypeParam>(begin, begin + 2 * shape.y_width());
    };
    Layer<TypeParam> alone(shape, caches, capacity), among(shape, caches, capacity);
    const auto first = qkv.begin() + 4 * shape.qkv_width();
    const auto y_alone = alone.pass({{.row = 1, .first = 0, .tokens = 2, .base = 900}},
                                    {first, first + 2 * shape.qkv_width()});
    const auto y_among =
        among.pass({{.row = 0, .first = 0, .tokens = 4, .base = 1400},
                    {},
                    {.row = 1, .first = 4, .tokens = 2, .base = 900},
                    {.row = 2, .first = 6, .tokens = 3, .base = 390, .pending = 10}},
                   qkv);
    EXPECT_TRUE(same_bits(y_of(y_alone, 0), y_of(y_among, 4)));
  }
}

TYPED_TEST(PassAttentionCuda, BitsDoNotDependOnTheSplitsOfThePassNorOnThePrefetch) {
  for (const Shape& shape : kShapes) {
    for (const int32_t base : {10, 254, 700}) {
      const int64_t capacity = base + 3;
      Caches<TypeParam> caches = empty_caches<TypeParam>(shape, 1, capacity);
      fill(caches, shape, 0, capacity, base, 3);
      const auto qkv = random_qkv<TypeParam>(shape, 3, 5);
      const std::vector<PassSequence> sequences = {
          {.row = 0, .first = 0, .tokens = 3, .base = base}};
      Layer<TypeParam> small(shape, caches, capacity), large(shape, caches, capacity);
      const auto y_small = small.pass(sequences, qkv);
      EXPECT_TRUE(same_bits(y_small, large.pass(sequences, qkv, /*splits=*/100)));
      EXPECT_TRUE(same_bits(y_small, large.pass(sequences, qkv, /*splits=*/33, /*prefetch=*/true)));
    }
  }
}

// Sequences of many tokens, between others, and each of them read in chunks that do not stream.
TYPED_TEST(PassAttentionCuda, StreamsWithTheSameBits) {
  if (sizeof(TypeParam) != 2) GTEST_SKIP() << "fp32 does not stream";
  constexpr int32_t kChunk = 50;
  for (const Shape& shape : kShapes) {
    const std::vector<PassSequence> all = {
        {.row = 2, .first = 0, .tokens = 300, .base = 0},
        {},
        {.row = 0, .first = 300, .tokens = 40, .base = 230, .pending = 4},
        {.row = 1, .first = 340, .tokens = 5, .base = 700},
        {.row = 3, .first = 345, .tokens = 300, .base = shape.heads > 9 ? 900 : 4000}};
    const int64_t capacity = 4300, tokens = 645;
    Caches<TypeParam> caches = empty_caches<TypeParam>(shape, 4, capacity);
    for (const PassSequence& s : all) {
      fill(caches, shape, s.row, capacity, s.base + s.pending, s.row + 1);
    }
    const auto qkv = random_qkv<TypeParam>(shape, tokens, 5);
    Layer<TypeParam> streaming(shape, caches, capacity), chunks(shape, caches, capacity);
    const auto together = streaming.pass(all, qkv, 0, false, /*streams=*/true);
    for (const PassSequence& s : all) {
      SCOPED_TRACE("head_dim " + std::to_string(shape.head_dim) + ", row " + std::to_string(s.row));
      for (int32_t done = 0; done < s.tokens; done += kChunk) {
        const int32_t count = std::min(kChunk, s.tokens - done), first = s.first + done;
        const auto begin = qkv.begin() + first * shape.qkv_width();
        const auto y =
            chunks.pass({{.row = s.row, .tokens = count, .base = s.base + s.pending + done}},
                        {begin, begin + count * shape.qkv_width()});
        EXPECT_EQ(std::memcmp(y.data(), together.data() + first * shape.y_width(),
                              y.size() * sizeof(TypeParam)),
                  0)
            << "tokens " << done << " to " << done + count;
      }
    }
    EXPECT_TRUE(same_bits(streaming.caches().keys, chunks.caches().keys));
    EXPECT_TRUE(same_bits(streaming.caches().values, chunks.caches().values));
  }
}

// More sequences than the device runs blocks, and some of them at a time.
TYPED_TEST(PassAttentionCuda, ManySequencesHaveTheSameBits) {
  const Shape shape{9, 3, 64};
  constexpr int32_t kSequences = 600, kTogether = 50;
  const int64_t capacity = 530;
  Caches<TypeParam> caches = empty_caches<TypeParam>(shape, kSequences, capacity);
  std::mt19937 random(3);
  std::vector<PassSequence> all;
  int32_t tokens = 0;
  for (int32_t row = 0; row < kSequences; ++row) {
    const int32_t count = row % 7 == 0 ? 12 : row % 5 == 0 ? 0 : 1;
    const auto before = static_cast<int32_t>(random() % (capacity - count + 1));
    const int32_t pending = std::min<int32_t>(before, random() % 3);
    all.push_back({.row = row,
                   .first = tokens,
                   .tokens = count,
                   .base = before - pending,
                   .pending = pending});
    tokens += count;
    fill(caches, shape, row, capacity, before, row);
  }
  const auto qkv = random_qkv<TypeParam>(shape, tokens, 5);
  Layer<TypeParam> many(shape, caches, capacity), few(shape, caches, capacity);
  const auto together = many.pass(all, qkv);
  std::vector<TypeParam> apart;
  for (int32_t begin = 0; begin < kSequences; begin += kTogether) {
    std::vector<PassSequence> some(all.begin() + begin, all.begin() + begin + kTogether);
    const int32_t first = some.front().first, end = some.back().first + some.back().tokens;
    for (PassSequence& sequence : some) sequence.first -= first;
    const auto y = few.pass(
        some, {qkv.begin() + first * shape.qkv_width(), qkv.begin() + end * shape.qkv_width()});
    apart.insert(apart.end(), y.begin(), y.end());
  }
  EXPECT_TRUE(same_bits(together, apart));
  EXPECT_TRUE(same_bits(many.caches().keys, few.caches().keys));
  EXPECT_TRUE(same_bits(many.caches().values, few.caches().values));
}

TYPED_TEST(PassAttentionCuda, RefusesSizesBeyondItsLimits) {
  const auto refused = [](const Shape& shape, int32_t tokens) {
    const auto p = params_of<TypeParam>(shape, {{.row = 0, .first = 0, .tokens = tokens}}, 64);
    EXPECT_THROW(pass_attention_cuda(p, {}, nullptr), Error);
  };
  refused({4, 2, 144}, 1);
  refused({4, 2, 24}, 1);
  refused({4, 3, 16}, 1);
  refused({4, 2, 16}, 65);
}

}  // namespace
}  // namespace mambify::kernels
