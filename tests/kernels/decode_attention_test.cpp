// Decode attention against its definition, on caches whose unused places hold NaN.
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "kernels/bf16_values.h"
#include "kernels/decode_attention/params.h"
#include "numerics.h"

namespace mambify::kernels {
namespace {

using testing::kLengths;
using testing::max_relative_error;
using testing::nan_values;
using testing::random_values;

// Sequences of every length in kLengths, in rows of the cache in another order.
template <typename T>
struct Problem {
  Problem(int64_t heads, int64_t groups, int64_t width) {
    const int64_t capacity = 501;
    lengths.assign(std::begin(kLengths), std::end(kLengths));
    p.sequences = static_cast<int64_t>(lengths.size());
    for (int64_t s = 0; s < p.sequences; ++s) rows.push_back((s * 5 + 2) % (p.sequences + 1));
    p.heads = heads;
    p.groups = groups;
    p.width = width;
    p.scale = 0.3f;
    p.group_stride = capacity * width;
    p.row_stride = groups * p.group_stride;
    q = narrowed<T>(random_values<float>(p.sequences * heads * width, 1, 2));
    keys = narrowed<T>(nan_values<float>((p.sequences + 1) * p.row_stride));
    values = keys;
    for (int64_t s = 0; s < p.sequences; ++s) {
      for (int64_t g = 0; g < groups; ++g) {
        const auto k = random_values<float>(lengths[s] * width, 2 + s * 100 + g);
        const auto v = random_values<float>(lengths[s] * width, 1000 + s * 100 + g);
        const int64_t offset = rows[s] * p.row_stride + g * p.group_stride;
        for (size_t i = 0; i < k.size(); ++i) {
          store(k[i], keys[offset + i]);
          store(v[i], values[offset + i]);
        }
      }
    }
    p.rows = rows.data();
    p.lengths = lengths.data();
    p.q = q.data();
    p.keys = keys.data();
    p.values = values.data();
  }

  template <typename Run>
  std::vector<float> result(const Run& run) const {
    auto y = narrowed<T>(nan_values<float>(p.sequences * p.heads * p.width));
    DecodeAttentionParams<T> params = p;
    params.y = y.data();
    run(params);
    return widened(y);
  }

  DecodeAttentionParams<T> p;
  std::vector<int64_t> rows, lengths;
  std::vector<T> q, keys, values;
};

template <typename T>
class DecodeAttention : public ::testing::Test {};
using Types = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(DecodeAttention, Types);

TYPED_TEST(DecodeAttention, EqualsItsDefinition) {
  for (const auto& [heads, groups, width] :
       {std::array<int64_t, 3>{9, 3, 64}, {4, 4, 16}, {6, 1, 33}, {2, 2, 1}}) {
    const Problem<TypeParam> problem(heads, groups, width);
    const auto fast = problem.result([](const auto& p) { decode_attention_cpu(p); });
    const auto expected = problem.result([](const auto& p) { decode_attention_reference(p); });
    EXPECT_LT(max_relative_error(fast, expected), output_tolerance(TypeParam{}))
        << heads << " heads, width " << width;
    // Bf16 is rounded once: few outputs are so near the middle between two that they differ.
    EXPECT_TRUE(sizeof(TypeParam) == 4 || share_of_different(fast, expected) < 5e-3);
  }
}

TYPED_TEST(DecodeAttention, ASequenceHasTheSameBitsAlone) {
  const Problem<TypeParam> problem(9, 3, 64);
  const auto together = problem.result([](const auto& p) { decode_attention_cpu(p); });
  const int64_t size = 9 * 64;
  for (int64_t s = 0; s < problem.p.sequences; ++s) {
    std::vector<TypeParam> y(size);
    DecodeAttentionParams<TypeParam> alone = problem.p;
    alone.sequences = 1;
    alone.rows += s;
    alone.lengths += s;
    alone.q += s * size;
    alone.y = y.data();
    decode_attention_cpu(alone);
    const std::vector<float> actual = widened(y);
    EXPECT_TRUE(std::equal(actual.begin(), actual.end(), together.begin() + s * size)) << s;
  }
}

TYPED_TEST(DecodeAttention, LargeScoresDoNotOverflow) {
  Problem<TypeParam> problem(2, 1, 64);
  for (TypeParam& x : problem.q) store(500 * to_float(x), x);
  const auto fast = problem.result([](const auto& p) { decode_attention_cpu(p); });
  const auto expected = problem.result([](const auto& p) { decode_attention_reference(p); });
  // The difference of two large scores has lost digits in fp32.
  EXPECT_LT(max_relative_error(fast, expected), 1e-2);
}

}  // namespace
}  // namespace mambify::kernels
