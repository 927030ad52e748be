#include "eval/tasks/position_bias.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mambify {
namespace {

TEST(PositionCounts, SeeAModelThatAlwaysSaysTheSame) {
  PositionCounts counts;
  for (int64_t gold = 0; gold < 4; ++gold) counts.add(gold, 0);
  EXPECT_EQ(counts.gold, (std::vector<int64_t>{1, 1, 1, 1}));
  EXPECT_EQ(counts.chosen, (std::vector<int64_t>{4, 0, 0, 0}));
  EXPECT_EQ(counts.right, (std::vector<int64_t>{1, 0, 0, 0}));
  // shares 1, 0, 0, 0: mean 1/4, variance 3/16
  EXPECT_NEAR(counts.recall_deviation(), std::sqrt(3.0) / 4, 1e-12);
}

TEST(PositionCounts, SeeNoneWhereAllPlacesAreAlike) {
  PositionCounts counts;
  for (int64_t gold = 0; gold < 3; ++gold) {
    counts.add(gold, gold);
    counts.add(gold, -1);
  }
  EXPECT_NEAR(counts.recall_deviation(), 0, 1e-12);
  EXPECT_EQ(counts.chosen, counts.right);
  EXPECT_EQ(PositionCounts().recall_deviation(), 0);
}

TEST(PositionCounts, SkipAPlaceThatIsNeverRight) {
  PositionCounts counts;
  counts.add(0, 1);
  EXPECT_EQ(counts.chosen, (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(counts.recall_deviation(), 0);
}

}  // namespace
}  // namespace mambify
