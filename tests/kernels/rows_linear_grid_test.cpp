// rows_linear with weights on grids: it must be as if the weights lay there as they are.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <type_traits>
#include <vector>

#include "kernels/rows_linear/params.h"
#include "kernels/strided_rows.h"

namespace mambify::kernels {
namespace {

// What a quantised file can hold: q times a half precision step, on a half precision base.
enum class Kind { q4_1, q4_0, q8_0 };
constexpr std::array<Kind, 2> kNibbles{Kind::q4_1, Kind::q4_0};

// A number that half precision has, in [size, 2 size); size is a power of two.
float random_half(std::mt19937_64& engine, float size) {
  const float spacing = std::max(size / 1024, 0x1p-24f);
  std::uniform_int_distribution<int> multiple(0, static_cast<int>(size / spacing) - 1);
  return size + spacing * static_cast<float>(multiple(engine));
}

// [outputs, inputs], inputs in whole groups.
template <typename Weight>
std::vector<Weight> weights_on_grids(Kind kind, int64_t outputs, int64_t inputs) {
  std::mt19937_64 engine(static_cast<uint64_t>(kind) + 5);
  std::vector<float> weights;
  for (int64_t group = 0; group < outputs * inputs / kGroup; ++group) {
    // A few groups have very small steps, whose half precision numbers are subnormal, or none.
    const float size = group % 7 == 3 ? 0x1p-20f : 0x1p-8f;
    const float step = group % 11 == 5 ? 0.0f : random_half(engine, size);
    const float sign = kind == Kind::q4_0 && engine() % 2 == 0 ? -1.0f : 1.0f;
    const float base = kind == Kind::q4_1   ? -random_half(engine, 8 * size)
                       : kind == Kind::q4_0 ? -8 * step * sign
                                            : 0.0f;
    const int highest = kind == Kind::q8_0 ? 127 : 15, lowest = kind == Kind::q8_0 ? -127 : 0;
    std::uniform_int_distribution<int> any(lowest, highest);
    for (int64_t i = 0; i < kGroup; ++i) {
      // The extremes are there, as they are in a file.
      const int q = i == 4 ? lowest : i == 9 ? highest : any(engine);
      weights.push_back(static_cast<float>(q) * step * sign + base);
    }
  }
  return narrowed<Weight>(weights);
}

template <typename Weight, typename Grid>
bool pack(const std::vector<Weight>& weight, int64_t outputs, int64_t inputs,
          std::vector<Grid>& packed) {
  packed.resize(panels_of(outputs) * groups_of(inputs));
  std::memset(packed.data(), 0xff, packed.size() * sizeof(Grid));
  return pack_grid_cpu<Weight, Grid>({outputs, inputs, weight.data(), packed.data()});
}

template <typename Weight>
class RowsLinearGridOf : public ::testing::Test {};
using Weights = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(RowsLinearGridOf, Weights);

template <typename Weight, typename Grid>
void expect_the_bits_of_plain_weights(Kind kind) {
  constexpr std::array<std::array<int64_t, 2>, 5> kSizes{
      {{1, 32}, {31, 64}, {33, 96}, {96, 576}, {500, 2080}}};
  for (const auto& [outputs, inputs] : kSizes) {
    const std::vector<Weight> weight = weights_on_grids<Weight>(kind, outputs, inputs);
    std::vector<Grid> on_grid;
    ASSERT_TRUE(pack(weight, outputs, inputs, on_grid)) << outputs << " x " << inputs;
    std::vector<Weight> plain(panels_of(outputs) * inputs * kPanel);
    pack_cpu<Weight>({outputs, inputs, weight.data(), plain.data()});
    for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 64, 265}) {
      StridedRows<Weight, Weight> expected(rows, inputs, outputs);
      expected.p.packed = plain.data();
      StridedRows<Grid, Weight> actual(rows, inputs, outputs);
      actual.p.packed = on_grid.data();
      const auto y = actual.result(actual.p, rows_linear_cpu<Grid, Weight>);
      const auto plain_y = expected.result(expected.p, rows_linear_cpu<Weight, Weight>);
      ASSERT_EQ(std::memcmp(y.data(), plain_y.data(), y.size() * sizeof(float)), 0)
          << rows << " rows, " << outputs << " x " << inputs;
    }
  }
}

TYPED_TEST(RowsLinearGridOf, NibblesGiveTheBitsOfTheWeightsThatTheyStandFor) {
  for (const Kind kind : kNibbles) {
    expect_the_bits_of_plain_weights<TypeParam, Grid4Group>(kind);
  }
}
TYPED_TEST(RowsLinearGridOf, BytesGiveTheBitsOfTheWeightsThatTheyStandFor) {
  expect_the_bits_of_plain_weights<TypeParam, Grid8Group>(Kind::q8_0);
}

// Whether weights with one of them replaced can still be packed.
template <typename Weight, typename Grid>
bool packs_with(Kind kind, int64_t index, const auto& replace) {
  std::vector<Weight> weight = weights_on_grids<Weight>(kind, 40, 96);
  weight[index] = replace(weight[index]);
  std::vector<Grid> packed;
  return pack(weight, 40, 96, packed);
}

// The number next to one in its own type.
float next(float x) { return std::nextafter(x, 2.0f); }
Bf16 next(Bf16 x) { return Bf16{static_cast<uint16_t>(x.bits + 1)}; }

TYPED_TEST(RowsLinearGridOf, OneWeightBesideItsGridIsNoticed) {
  const auto as_weight = [](float x) { return narrowed<TypeParam>({x})[0]; };
  const auto same = [](TypeParam weight) { return weight; };
  const auto off = [](TypeParam weight) { return next(weight); };
  // A Bf16 next to a large code times the step may be what the next code rounds to.
  const auto third = [&](TypeParam weight) { return as_weight(to_float(weight) / 3); };
  const auto infinite = [&](TypeParam) { return as_weight(INFINITY); };
  const auto nan = [&](TypeParam) { return as_weight(NAN); };
  // The lowest of their groups: -127 with bytes.
  for (const int64_t index : {int64_t{4}, int64_t{39 * 96 + 68}, int64_t{20 * 96 + 36}}) {
    EXPECT_TRUE((packs_with<TypeParam, Grid4Group>(Kind::q4_1, index, same)));
    EXPECT_FALSE((packs_with<TypeParam, Grid4Group>(Kind::q4_1, index, off)));
    EXPECT_FALSE((packs_with<TypeParam, Grid4Group>(Kind::q4_1, index, infinite)));
    EXPECT_TRUE((packs_with<TypeParam, Grid8Group>(Kind::q8_0, index, same)));
    EXPECT_FALSE((packs_with<TypeParam, Grid8Group>(Kind::q8_0, index, third)));
    EXPECT_FALSE((packs_with<TypeParam, Grid8Group>(Kind::q8_0, index, nan)));
  }
  for (const int64_t index : {int64_t{0}, int64_t{39 * 96 + 95}, int64_t{20 * 96 + 40}}) {
    EXPECT_FALSE((packs_with<TypeParam, Grid4Group>(Kind::q4_1, index, off)));
  }
  // The other zero has other bits.
  EXPECT_FALSE((packs_with<TypeParam, Grid8Group>(Kind::q8_0, 5 * kGroup,
                                                  [&](TypeParam) { return as_weight(-0.0f); })));
}

TEST(RowsLinearGrid, TheFloatNextToOneOnAGridIsNoticed) {
  const auto off = [](float weight) { return next(weight); };
  for (const int64_t index : {int64_t{0}, int64_t{39 * 96 + 95}, int64_t{20 * 96 + 40}}) {
    EXPECT_FALSE((packs_with<float, Grid8Group>(Kind::q8_0, index, off)));
  }
}

TEST(RowsLinearGrid, OrdinaryWeightsAndPartsOfGroupsAreRefused) {
  const auto weight = testing::random_values<float>(40 * 96, 3);
  std::vector<Grid4Group> nibbles;
  std::vector<Grid8Group> bytes;
  EXPECT_FALSE(pack(weight, 40, 96, nibbles));
  EXPECT_FALSE(pack(weight, 40, 96, bytes));
  EXPECT_FALSE(pack(narrowed<Bf16>(weight), 40, 96, nibbles));
  EXPECT_FALSE(pack(narrowed<Bf16>(weight), 40, 96, bytes));
  EXPECT_FALSE(pack(weights_on_grids<float>(Kind::q4_1, 32, 96), 64, 48, nibbles));
}

}  // namespace
}  // namespace mambify::kernels
