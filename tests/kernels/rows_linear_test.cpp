// rows_linear against its definition, and the promise about bits that decoding stands on.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

#include "kernels/rows_linear/params.h"
#include "kernels/strided_rows.h"
#include "numerics.h"

namespace mambify::kernels {
namespace {

using testing::max_relative_error;
using testing::nan_values;
using testing::random_values;

// Activations of the weights' type, as models have them.
template <typename Weight>
struct Problem : StridedRows<Weight, Weight> {
  Problem(int64_t rows, int64_t inputs, int64_t outputs)
      : StridedRows<Weight, Weight>(rows, inputs, outputs),
        weight(narrowed<Weight>(random_values<float>(outputs * inputs, 1))),
        packed(narrowed<Weight>(nan_values<float>(panels_of(outputs) * inputs * kPanel))) {
    pack_cpu<Weight>({outputs, inputs, weight.data(), packed.data()});
    this->p.packed = packed.data();
  }

  std::vector<float> fast(const RowsLinearParams<Weight, Weight>& params) const {
    return this->result(params, rows_linear_cpu<Weight, Weight>);
  }
  std::vector<float> reference() const {
    return this->result(this->p, rows_linear_reference<Weight, Weight>);
  }

  std::vector<Weight> weight, packed;
};

template <typename Weight>
class RowsLinearOf : public ::testing::Test {};
using Weights = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(RowsLinearOf, Weights);

// Outputs around a panel, inputs around the block that stays in the cache.
constexpr std::array<std::array<int64_t, 2>, 7> kSizes{
    {{1, 1}, {31, 7}, {32, 64}, {33, 2050}, {65, 4097}, {96, 576}, {500, 3}}};

TYPED_TEST(RowsLinearOf, PackedWeightsGiveTheDefinition) {
  for (const auto& [outputs, inputs] : kSizes) {
    const Problem<TypeParam> problem(2, inputs, outputs);
    std::vector<double> expected;
    for (int64_t r = 0; r < 2; ++r) {
      for (int64_t j = 0; j < outputs; ++j) {
        double sum = 0;
        for (int64_t i = 0; i < inputs; ++i) {
          sum += double{to_float(problem.x[r * problem.p.x_stride + i])} *
                 to_float(problem.weight[j * inputs + i]);
        }
        expected.push_back(sum);
      }
    }
    const double limit = sizeof(TypeParam) == 4 ? 1e-6 : output_tolerance(TypeParam{});
    EXPECT_LT(max_relative_error(problem.reference(), expected), limit)
        << outputs << " x " << inputs;
  }
}

TYPED_TEST(RowsLinearOf, EqualsItsDefinition) {
  for (const auto& [outputs, inputs] : kSizes) {
    for (const int64_t rows : {1, 2, 5, 11, 12, 13, 64}) {
      const Problem<TypeParam> problem(rows, inputs, outputs);
      EXPECT_LT(max_relative_error(problem.fast(problem.p), problem.reference()),
                output_tolerance(TypeParam{}))
          << rows << " rows, " << outputs << " x " << inputs;
    }
  }
}

// Sums are of floats: few are so close to the middle between two neighbours that the last digit of
// the sum decides.
TEST(RowsLinear, Bf16IsRoundedOnce) {
  const Problem<Bf16> problem(40, 576, 500);
  EXPECT_LT(share_of_different(problem.fast(problem.p), problem.reference()), 1e-3);
}

TYPED_TEST(RowsLinearOf, ARowHasTheSameBitsInEveryCompany) {
  for (const auto& [outputs, inputs] : kSizes) {
    const int64_t most = 40;
    const Problem<TypeParam> problem(most, inputs, outputs);
    const auto all = problem.fast(problem.p);
    for (const int64_t rows : {1, 2, 3, 4, 5, 9, 12, 17}) {
      for (int64_t first = 0; first + rows <= most; first += 7) {
        RowsLinearParams<TypeParam, TypeParam> some = problem.p;
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
