// rows_linear against its definition, and the promise about bits that decoding stands on.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstring>
#include <vector>

#include "kernels/rows_linear/params.h"
#include "kernels/strided_rows.h"
#include "numerics.h"
#include "tolerances.h"

namespace mambify::kernels {
namespace {

using testing::max_relative_error;
using testing::random_values;

void store(float x, float& weight) { weight = x; }
void store(float x, Bf16& weight) {
  weight.bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16);
}

template <typename Weight>
struct Problem : StridedRows<Weight> {
  Problem(int64_t rows, int64_t inputs, int64_t outputs)
      : StridedRows<Weight>(rows, inputs, outputs) {
    const auto values = random_values<float>(outputs * inputs, 1);
    weight.resize(values.size());
    for (size_t i = 0; i < values.size(); ++i) store(values[i], weight[i]);
    packed.resize(panels_of(outputs) * inputs * kPanel);
    for (Weight& w : packed) store(std::numeric_limits<float>::quiet_NaN(), w);
    pack_cpu<Weight>({outputs, inputs, weight.data(), packed.data()});
    this->p.packed = packed.data();
  }

  std::vector<float> fast(const RowsLinearParams<Weight>& params) const {
    return this->result(params, rows_linear_cpu<Weight>);
  }

  std::vector<Weight> weight, packed;
};

template <typename Weight>
class RowsLinear : public ::testing::Test {};
using Weights = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(RowsLinear, Weights);

// Outputs around a panel, inputs around the block that stays in the cache.
constexpr std::array<std::array<int64_t, 2>, 7> kSizes{
    {{1, 1}, {31, 7}, {32, 64}, {33, 2050}, {65, 4097}, {96, 576}, {500, 3}}};

TYPED_TEST(RowsLinear, PackedWeightsGiveTheDefinition) {
  for (const auto& [outputs, inputs] : kSizes) {
    const Problem<TypeParam> problem(2, inputs, outputs);
    std::vector<double> expected;
    for (int64_t r = 0; r < 2; ++r) {
      for (int64_t j = 0; j < outputs; ++j) {
        double sum = 0;
        for (int64_t i = 0; i < inputs; ++i) {
          sum += double{problem.x[r * problem.p.x_stride + i]} *
                 to_float(problem.weight[j * inputs + i]);
        }
        expected.push_back(sum);
      }
    }
    const auto reference = problem.result(problem.p, rows_linear_reference<TypeParam>);
    EXPECT_LT(max_relative_error(reference, expected), 1e-6) << outputs << " x " << inputs;
  }
}

TYPED_TEST(RowsLinear, EqualsItsDefinition) {
  for (const auto& [outputs, inputs] : kSizes) {
    for (const int64_t rows : {1, 2, 5, 11, 12, 13, 64}) {
      const Problem<TypeParam> problem(rows, inputs, outputs);
      const auto expected = problem.result(problem.p, rows_linear_reference<TypeParam>);
      EXPECT_LT(max_relative_error(problem.fast(problem.p), expected),
                testing::tolerance("cpu", "fp32").output)
          << rows << " rows, " << outputs << " x " << inputs;
    }
  }
}

TYPED_TEST(RowsLinear, ARowHasTheSameBitsInEveryCompany) {
  for (const auto& [outputs, inputs] : kSizes) {
    const int64_t most = 40;
    const Problem<TypeParam> problem(most, inputs, outputs);
    const auto all = problem.fast(problem.p);
    for (const int64_t rows : {1, 2, 3, 4, 5, 9, 12, 17}) {
      for (int64_t first = 0; first + rows <= most; first += 7) {
        RowsLinearParams<TypeParam> some = problem.p;
        some.rows = rows;
        some.x += first * some.x_stride;
        const auto y = problem.fast(some);
        ASSERT_EQ(std::memcmp(y.data(), all.data() + first * outputs, y.size() * sizeof(float)), 0)
            << rows << " rows from " << first << ", " << outputs << " x " << inputs;
      }
    }
  }
}

}  // namespace
}  // namespace mambify::kernels
