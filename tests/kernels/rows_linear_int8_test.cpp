// rows_linear with int8 weights: against its definition, against the product without rounding, and
// the promise about bits on every instruction set that this machine has.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/rows_linear/int8_tiles.h"
#include "kernels/strided_rows.h"
#include "numerics.h"
#include "tolerances.h"

namespace mambify::kernels {
namespace {

using testing::max_relative_error;
using testing::random_values;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<Int8Group> packed(const std::vector<float>& weight, int64_t outputs, int64_t inputs) {
  std::vector<Int8Group> groups(panels_of(outputs) * groups_of(inputs));
  std::memset(groups.data(), 0xff, groups.size() * sizeof(Int8Group));
  pack_int8_cpu<float>({outputs, inputs, weight.data(), groups.data()});
  return groups;
}

double scale_in(const std::vector<Int8Group>& groups, int64_t inputs, int64_t output, int64_t i) {
  const Bf16* scales = groups[output / kPanel * groups_of(inputs) + i / kGroup].scales;
  return to_float(scales[place_in_panel(scales, output % kPanel)]);
}
int integer_in(const std::vector<Int8Group>& groups, int64_t inputs, int64_t output, int64_t i) {
  const Int8Group& group = groups[output / kPanel * groups_of(inputs) + i / kGroup];
  return group.weights[i % kGroup / 4][output % kPanel][i % 4] - 128;
}

struct Problem : StridedRows<Int8Group> {
  Problem(int64_t rows, int64_t inputs, int64_t outputs)
      : StridedRows(rows, inputs, outputs),
        weight(random_values<float>(outputs * inputs, 1)),
        groups(packed(weight, outputs, inputs)) {
    p.packed = groups.data();
  }

  std::vector<float> with(const Int8Tiles& tiles, const RowsLinearParams<Int8Group>& params) const {
    return result(params, [&](const auto& some) { rows_linear_int8(some, tiles); });
  }
  std::vector<float> fast() const {
    return result(p, [](const auto& some) { rows_linear_cpu(some); });
  }
  std::vector<float> reference() const {
    return result(p, [](const auto& some) { rows_linear_reference(some); });
  }

  float* row(int64_t r) { return x.data() + r * p.x_stride; }

  std::vector<float> weight;
  std::vector<Int8Group> groups;
};

bool same_bits(const std::vector<float>& a, const float* b) {
  return std::memcmp(a.data(), b, a.size() * sizeof(float)) == 0;
}

// Outputs around a panel, inputs around a group.
constexpr std::array<std::array<int64_t, 2>, 8> kSizes{
    {{1, 1}, {31, 33}, {32, 64}, {33, 31}, {33, 1057}, {96, 576}, {300, 96}, {300, 2}}};

TEST(RowsLinearInt8, AWeightIsOffByHalfAStepAtMost) {
  for (const auto& [outputs, inputs] : kSizes) {
    const auto weight = random_values<float>(outputs * inputs, 1);
    const auto groups = packed(weight, outputs, inputs);
    for (int64_t j = 0; j < outputs; ++j) {
      for (int64_t i = 0; i < inputs; ++i) {
        const int64_t begin = j * inputs + i / kGroup * kGroup;
        float largest = 0;
        for (int64_t k = begin; k < std::min(begin + kGroup, (j + 1) * inputs); ++k) {
          largest = std::max(largest, std::abs(weight[k]));
        }
        const double scale = scale_in(groups, inputs, j, i);
        ASSERT_GE(scale, largest / 127.0f);
        ASSERT_LE(scale, largest / 127.0 * (1 + 1.0 / 128));
        ASSERT_LE(std::abs(integer_in(groups, inputs, j, i) * scale - weight[j * inputs + i]),
                  scale * (0.5 + 1e-4));
      }
    }
  }
}

TEST(RowsLinearInt8, WhatIsBeyondInputsAndOutputsIsZero) {
  const int64_t outputs = 33, inputs = 45;
  const auto groups = packed(random_values<float>(outputs * inputs, 1), outputs, inputs);
  for (int64_t j = 0; j < panels_of(outputs) * kPanel; ++j) {
    for (int64_t i = 0; i < groups_of(inputs) * kGroup; ++i) {
      const bool inside = j < outputs && i < inputs;
      ASSERT_TRUE(inside || integer_in(groups, inputs, j, i) == 0) << j << ", " << i;
    }
  }
}

TEST(RowsLinearInt8, Bf16WeightsPackAsTheFloatsThatTheyAre) {
  const int64_t outputs = 33, inputs = 45;
  const auto weight = random_values<float>(outputs * inputs, 1);
  std::vector<Bf16> narrow;
  std::vector<float> wide;
  for (const float w : weight) {
    narrow.push_back({static_cast<uint16_t>(std::bit_cast<uint32_t>(w) >> 16)});
    wide.push_back(to_float(narrow.back()));
  }
  const auto expected = packed(wide, outputs, inputs);
  std::vector<Int8Group> groups(expected.size());
  pack_int8_cpu<Bf16>({outputs, inputs, narrow.data(), groups.data()});
  EXPECT_EQ(std::memcmp(groups.data(), expected.data(), groups.size() * sizeof(Int8Group)), 0);
}

TEST(RowsLinearInt8, EqualsItsDefinition) {
  for (const auto& [outputs, inputs] : kSizes) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 40}) {
      const Problem problem(rows, inputs, outputs);
      EXPECT_LT(max_relative_error(problem.fast(), problem.reference()),
                testing::tolerance("cpu", "fp32").output)
          << rows << " rows, " << outputs << " x " << inputs;
    }
  }
}

TEST(RowsLinearInt8, ARowHasTheSameBitsInEveryCompanyOnEveryInstructionSet) {
  for (const auto& [outputs, inputs] : kSizes) {
    const int64_t most = 40;
    const Problem problem(most, inputs, outputs);
    const auto all = problem.fast();
    for (const Int8Tiles& tiles : int8_tiles()) {
      for (int64_t rows = 1; rows <= 17; ++rows) {
        for (int64_t first = 0; first + rows <= most; first += 11) {
          RowsLinearParams<Int8Group> some = problem.p;
          some.rows = rows;
          some.x += first * some.x_stride;
          ASSERT_TRUE(same_bits(problem.with(tiles, some), all.data() + first * outputs))
              << tiles.name << ", " << rows << " rows from " << first << ", " << outputs << " x "
              << inputs;
        }
      }
    }
  }
}

TEST(RowsLinearInt8, Bf16RowsAreTheFloatsThatTheyAreAndRoundedOnce) {
  for (const auto& [outputs, inputs] : kSizes) {
    StridedRows<Int8Group, Bf16> narrow(13, inputs, outputs);
    Problem wide(13, inputs, outputs);
    narrow.p.packed = wide.p.packed;
    wide.x = widened(narrow.x);
    wide.p.x = wide.x.data();
    const auto fast = narrow.result(narrow.p, [](const auto& p) { rows_linear_cpu(p); });
    EXPECT_EQ(fast, widened(narrowed<Bf16>(wide.fast()))) << outputs << " x " << inputs;
    EXPECT_LT(max_relative_error(
                  narrow.result(narrow.p, [](const auto& p) { rows_linear_reference(p); }), fast),
              output_tolerance(Bf16{}));
  }
}

// Every weight is off by half its scale at most, and every input by half of its own.
TEST(RowsLinearInt8, StaysWithinTheErrorOfRounding) {
  const int64_t rows = 3, inputs = 576, outputs = 96;
  const Problem problem(rows, inputs, outputs);
  const auto y = problem.fast();
  double error = 0, bound = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = problem.x.data() + r * problem.p.x_stride;
    for (int64_t j = 0; j < outputs; ++j) {
      double exact = 0, most = 0, largest = 0;
      for (int64_t i = 0; i < inputs; ++i) {
        if (i % kGroup == 0) {
          largest = 0;
          for (int64_t k = i; k < i + kGroup; ++k)
            largest = std::max<double>(largest, std::abs(x[k]));
        }
        const double w = problem.weight[j * inputs + i];
        const double dw = scale_in(problem.groups, inputs, j, i) / 2, dx = largest / 127 / 2;
        exact += w * x[i];
        most += std::abs(w) * dx + std::abs(x[i]) * dw + dx * dw;
      }
      EXPECT_LE(std::abs(y[r * outputs + j] - exact), most * 1.001);
      error += std::pow(y[r * outputs + j] - exact, 2);
      bound += exact * exact;
    }
  }
  // Errors of both signs: about a step over the square root of 12, twice.
  EXPECT_LT(std::sqrt(error / bound), 0.012);
  EXPECT_GT(std::sqrt(error / bound), 0.001);
}

// 127 times the same: nothing is rounded but the scales, and no sum of products saturates.
TEST(RowsLinearInt8, TakesTheLargestIntegersWithoutSaturating) {
  const int64_t inputs = 96, outputs = 33;
  for (const float sign : {1.0f, -1.0f}) {
    const auto groups = packed(std::vector<float>(outputs * inputs, 127.0f), outputs, inputs);
    const std::vector<float> x(inputs, sign * 127.0f);
    for (const Int8Tiles& tiles : int8_tiles()) {
      std::vector<float> y(outputs);
      rows_linear_int8<float>({.rows = 1,
                               .inputs = inputs,
                               .outputs = outputs,
                               .x = x.data(),
                               .x_stride = inputs,
                               .packed = groups.data(),
                               .y = y.data(),
                               .y_stride = outputs},
                              tiles);
      EXPECT_EQ(y, std::vector<float>(outputs, sign * 127 * 127 * inputs)) << tiles.name;
    }
  }
}

TEST(RowsLinearInt8, RowsThatAreNotOrdinaryHarmNoOther) {
  const int64_t inputs = 70, outputs = 40;
  Problem problem(7, inputs, outputs);
  const auto before = problem.fast();
  std::fill_n(problem.row(0), inputs, 0.0f);
  problem.row(1)[5] = kInfinity;
  problem.row(2)[69] = std::numeric_limits<float>::quiet_NaN();
  std::fill_n(problem.row(3), inputs, 7e-37f);  // its scale is not a normal number
  for (int64_t i = 0; i < inputs; ++i) problem.row(4)[i] *= 1e30f;
  for (int64_t i = 0; i < inputs; ++i) problem.row(5)[i] *= 1e-30f;
  const auto expected = problem.reference();
  for (const Int8Tiles& tiles : int8_tiles()) {
    const auto y = problem.with(tiles, problem.p);
    const auto row = [&](int64_t r) {
      return std::vector<float>(y.begin() + r * outputs, y.begin() + (r + 1) * outputs);
    };
    const auto expected_row = [&](int64_t r) {
      return std::vector<float>(expected.begin() + r * outputs,
                                expected.begin() + (r + 1) * outputs);
    };
    EXPECT_EQ(row(0), std::vector<float>(outputs, 0.0f)) << tiles.name;
    for (int64_t j = 0; j < outputs; ++j) {
      EXPECT_TRUE(std::isnan(row(1)[j])) << tiles.name;
      EXPECT_TRUE(std::isnan(row(2)[j])) << tiles.name;
    }
    EXPECT_EQ(row(3), std::vector<float>(outputs, 0.0f)) << tiles.name;
    EXPECT_LT(max_relative_error(row(4), expected_row(4)), 5e-6) << tiles.name;
    EXPECT_LT(max_relative_error(row(5), expected_row(5)), 5e-6) << tiles.name;
    EXPECT_TRUE(same_bits(row(6), before.data() + 6 * outputs)) << tiles.name;
  }
}

TEST(RowsLinearInt8, WeightsThatAreNotOrdinaryHarmNoOtherOutput) {
  const int64_t inputs = 70, outputs = 40;
  const Problem plain(2, inputs, outputs);
  auto weight = plain.weight;
  std::fill_n(weight.begin(), inputs, 0.0f);
  weight[inputs + 3] = kInfinity;
  weight[2 * inputs + 69] = std::bit_cast<float>(0x7fffffffu);  // the last NaN
  const auto groups = packed(weight, outputs, inputs);
  auto params = plain.p;
  params.packed = groups.data();
  const auto before = plain.fast();
  for (const Int8Tiles& tiles : int8_tiles()) {
    const auto y = plain.with(tiles, params);
    EXPECT_EQ(y[0], 0) << tiles.name;
    EXPECT_TRUE(std::isnan(y[1])) << tiles.name;
    EXPECT_TRUE(std::isnan(y[2])) << tiles.name;
    EXPECT_TRUE(same_bits({y.begin() + 3, y.begin() + outputs}, before.data() + 3)) << tiles.name;
  }
}

}  // namespace
}  // namespace mambify::kernels
