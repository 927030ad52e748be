// A model's products with packed weights against those with its own.
#include "model/projection.h"

#include <gtest/gtest.h>

#include "model/fixtures.h"

namespace mambify {
namespace {

using namespace testing;

class Projection : public ::testing::TestWithParam<const char*> {
 protected:
  // The largest difference of logits over the largest logit.
  double error_of(WeightFormat format) const {
    const PackedWeights packed(model_, format);
    const at::Tensor ids = (at::arange(60) * 7).remainder(model_.config.vocab_size).unsqueeze(0);
    const at::Tensor own = logits_of(model_, ids);
    return ((logits_of(model_, ids, &packed) - own).abs().max() / own.abs().max()).item<double>();
  }

  const Model model_ = load_model(fixtures() / GetParam());
};

TEST_P(Projection, PackedWeightsGiveTheSameLogits) {
  EXPECT_LT(error_of(WeightFormat::native), 1e-4);
}

// Rounding is all that differs, and it must be seen.
TEST_P(Projection, Int8WeightsGiveNearlyTheSameLogits) {
  EXPECT_LT(error_of(WeightFormat::int8), 0.05);
  EXPECT_GT(error_of(WeightFormat::int8), 1e-4);
}

TEST_P(Projection, EveryMatrixIsInt8AndNothingElse) {
  const PackedWeights native(model_), int8(model_, WeightFormat::int8);
  EXPECT_EQ(native.native_bytes(), int8.native_bytes());
  EXPECT_GE(native.bytes(), native.native_bytes());
  // 34 bytes instead of 128 where sizes are whole groups and panels.
  EXPECT_LT(int8.bytes(), native.bytes() / 2);
  for (const Block& block : model_.blocks) {
    EXPECT_EQ(int8.find(block.input_norm), nullptr);
    if (!block.post_norm.defined()) continue;
    ASSERT_NE(int8.find(block.mlp.down_proj), nullptr);
    EXPECT_EQ(int8.find(block.mlp.down_proj)->layout, PackedMatrix::Layout::int8);
  }
  ASSERT_NE(int8.find(model_.lm_head), nullptr);
  EXPECT_EQ(int8.find(model_.lm_head)->layout, PackedMatrix::Layout::int8);
}

TEST(ProjectAsOne, HasTheColumnsOfAGroupBesideEachOther) {
  const at::Tensor x = at::randn({5, 12}), a = at::randn({7, 12}), b = at::randn({6, 12});
  const at::Tensor y = project_as_one(x, {a, b});
  EXPECT_TRUE(at::allclose(y, at::cat({at::linear(x, a), at::linear(x, b)}, 1), 1e-5, 1e-5));
}

TEST(AlignRank, ChangesTheInnerDimensionButNotTheProduct) {
  const at::Tensor x = at::randn({5, 12});
  at::Tensor down = at::randn({6, 12}), up = at::randn({20, 6});
  const at::Tensor expected = at::linear(at::linear(x, down), up);
  align_rank(down, up);
  EXPECT_EQ(down.size(0), 8);
  EXPECT_EQ(up.size(1), 8);
  EXPECT_TRUE(at::allclose(at::linear(at::linear(x, down), up), expected, 1e-5, 1e-5));
  const at::Tensor aligned = down;
  align_rank(down, up);
  EXPECT_TRUE(down.is_same(aligned));
}

INSTANTIATE_TEST_SUITE_P(All, Projection, ::testing::ValuesIn(kCheckpoints), [](const auto& info) {
  std::string name = info.param;
  std::erase(name, '-');
  return name;
});

}  // namespace
}  // namespace mambify
