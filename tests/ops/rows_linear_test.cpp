#include "ops/rows_linear.h"

#include <gtest/gtest.h>

#include <limits>

#include "ops/tensors.h"
#include "tolerances.h"

namespace mambify {
namespace {

using namespace testing;

at::Tensor random_tensor(at::IntArrayRef sizes, uint64_t seed, at::ScalarType dtype = at::kFloat) {
  return random_leaf(sizes, seed, 1, dtype).detach();
}

// In memory of its own.
PackedMatrix pack(const at::Tensor& weight, WeightFormat format = WeightFormat::native) {
  PanelMemory memory;
  return pack_matrix(weight, format, memory);
}

TEST(RowsLinear, MultipliesAsLinearDoes) {
  const at::Tensor x = random_tensor({7, 65}, 1), weight = random_tensor({45, 65}, 2);
  EXPECT_LT(tensor_error(rows_linear(x, pack(weight)), at::linear(x, weight)),
            tolerance("cpu", "fp32").output);
}

TEST(RowsLinear, TakesViews) {
  const at::Tensor wide = random_tensor({7, 130}, 1), tall = random_tensor({65, 45}, 2);
  const at::Tensor x = wide.narrow(1, 40, 65), weight = tall.t();
  EXPECT_LT(tensor_error(rows_linear(x, pack(weight)), at::linear(x, weight)),
            tolerance("cpu", "fp32").output);
}

TEST(RowsLinear, AccumulatesBf16InFp32) {
  const at::Tensor x = random_tensor({3, 600}, 1, at::kBFloat16);
  const at::Tensor weight = random_tensor({33, 600}, 2, at::kBFloat16);
  const at::Tensor y = rows_linear(x, pack(weight));
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  const at::Tensor exact = at::linear(x.to(at::kDouble), weight.to(at::kDouble));
  // Half a unit in the last place of a bf16 result.
  EXPECT_LT(tensor_error(y, exact), 1.0 / 256);
}

// Weights as a quantised file holds them are packed as such, and give the bits of any others.
TEST(RowsLinear, PacksWeightsOnGridsWithoutLoss) {
  const at::Tensor q = at::arange(64 * 96).mul(7).remainder(16).view({64, 3, 32});
  const at::Tensor nibbles = (q * 0.125 - 1.5).view({64, 96});
  const at::Tensor bytes = ((q * 127).div(15, "trunc") * 0.25).view({64, 96});
  const at::Tensor x = random_tensor({5, 96}, 1);
  using enum PackedMatrix::Layout;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const PackedMatrix grid4 = pack(nibbles.to(dtype)), grid8 = pack(bytes.to(dtype));
    EXPECT_EQ(grid4.layout, PackedMatrix::Layout::grid4);
    EXPECT_EQ(grid8.layout, PackedMatrix::Layout::grid8);
    // One more output, on no grid, and none is packed so.
    const auto whole = [&](const at::Tensor& weight) {
      const PackedMatrix packed =
          pack(at::cat({weight.to(dtype), random_tensor({1, 96}, 3, dtype)}));
      EXPECT_EQ(packed.layout, weights);
      return rows_linear(x.to(dtype), packed).narrow(1, 0, 64);
    };
    EXPECT_TRUE(at::equal(rows_linear(x.to(dtype), grid4), whole(nibbles)));
    EXPECT_TRUE(at::equal(rows_linear(x.to(dtype), grid8), whole(bytes)));
    EXPECT_TRUE(rows_are_invariant(grid4, 16));
    EXPECT_LT(grid4.panels.nbytes(), nibbles.numel());
  }
}

// Rounding to 8 bits is all that may differ, and it must be seen.
TEST(RowsLinear, MultipliesByInt8NearlyAsLinearDoes) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor wide = random_tensor({7, 700}, 1, dtype),
                     weight = random_tensor({45, 600}, 2, dtype);
    const at::Tensor x = wide.narrow(1, 40, 600);
    const at::Tensor y = rows_linear(x, pack(weight, WeightFormat::int8));
    EXPECT_EQ(y.scalar_type(), dtype);
    const double error = tensor_error(y, at::linear(x.to(at::kDouble), weight.to(at::kDouble)));
    EXPECT_LT(error, 0.02) << dtype;
    EXPECT_GT(error, 1e-3) << dtype;
  }
}

TEST(RowsLinear, Int8TakesAQuarterOfTheMemoryAndItsScales) {
  const at::Tensor weight = random_tensor({64, 96}, 1);
  EXPECT_EQ(pack(weight, WeightFormat::int8).panels.nbytes(), 64 * 96 + 64 * 96 / 32 * 2);
  EXPECT_EQ(pack(weight).panels.nbytes(), weight.nbytes());
}

TEST(RowsLinear, RefusesWhatDoesNotFit) {
  for (const WeightFormat format : {WeightFormat::native, WeightFormat::int8}) {
    const PackedMatrix weight = pack(at::zeros({4, 8}), format);
    EXPECT_THROW(rows_linear(at::zeros({2, 9}), weight), c10::Error);
    EXPECT_THROW(rows_linear(at::zeros({2, 8}, at::kBFloat16), weight), c10::Error);
  }
  EXPECT_THROW(pack(at::zeros({4, 8}, at::kDouble)), c10::Error);
  EXPECT_THROW(pack(at::zeros({4})), c10::Error);
}

TEST(RowsAreInvariant, HoldsForEveryFormat) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor weight = random_leaf({70, 100}, 1, 1, type).detach();
    for (const WeightFormat format : {WeightFormat::native, WeightFormat::int8}) {
      EXPECT_TRUE(rows_are_invariant(pack(weight, format), 16));
    }
  }
  const at::Tensor broken = at::full({3, 8}, std::numeric_limits<double>::quiet_NaN());
  EXPECT_TRUE(rows_are_invariant(pack(broken.to(at::kFloat)), 4));
}

}  // namespace
}  // namespace mambify
