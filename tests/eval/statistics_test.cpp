#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace mambify {
namespace {

using Values = std::vector<double>;

TEST(Statistics, EstimatesMeanAndStandardError) {
  const Estimate result = estimate(Values{1, 0, 1, 1});
  EXPECT_DOUBLE_EQ(result.mean, 0.75);
  // sample variance (3 * 0.25^2 + 0.75^2) / 3 = 0.25; sqrt(0.25 / 4)
  EXPECT_DOUBLE_EQ(result.error, 0.25);
  EXPECT_EQ(estimate(Values{1}).error, 0);
}

TEST(Statistics, ARatioCountsTextsByTheirTokens) {
  const Estimate result = estimate_ratio(Values{6, 2, 1}, Values{2, 1, 1});
  EXPECT_DOUBLE_EQ(result.mean, 9.0 / 4);
  // residuals 1.5, -0.25, -1.25; sqrt(3 / 2 * (2.25 + 0.0625 + 1.5625)) / 4
  EXPECT_DOUBLE_EQ(result.error, std::sqrt(1.5 * 3.875) / 4);
  EXPECT_EQ(estimate_ratio(Values{3}, Values{2}).error, 0);
  // texts of equal length: the mean of their means
  const Values means = {0.5, 0.25, 1, 0.75};
  const Estimate equal = estimate_ratio(Values{5, 2.5, 10, 7.5}, Values{10, 10, 10, 10});
  EXPECT_DOUBLE_EQ(equal.mean, estimate(means).mean);
  EXPECT_DOUBLE_EQ(equal.error, estimate(means).error);
}

TEST(Statistics, ComparesItemByItem) {
  const PairedComparison result =
      compare_paired(Values{1, 0, 1, 0}, Values{1, 1, 1, 0}, /*chance=*/0.25);
  EXPECT_DOUBLE_EQ(result.difference.mean, -0.25);
  EXPECT_DOUBLE_EQ(result.difference.error, 0.25);
  EXPECT_NEAR(result.interval.low, -0.25 - 1.96 * 0.25, 1e-4);
  EXPECT_NEAR(result.interval.high, -0.25 + 1.96 * 0.25, 1e-4);
  ASSERT_TRUE(result.kept);
  EXPECT_DOUBLE_EQ(*result.kept, 0.5);  // (0.5 - 0.25) / (0.75 - 0.25)
}

TEST(Statistics, AModelKeepsAllOfItself) {
  Values values;
  for (int i = 0; i < 200; ++i) values.push_back(i % 3 == 0 ? 0 : 1);
  const PairedComparison result = compare_paired(values, values, 0.25);
  EXPECT_EQ(result.difference.error, 0);
  EXPECT_DOUBLE_EQ(result.kept.value(), 1);
  ASSERT_TRUE(result.kept_interval);
  EXPECT_DOUBLE_EQ(result.kept_interval->low, 1);
  EXPECT_DOUBLE_EQ(result.kept_interval->high, 1);
}

TEST(Statistics, NothingIsKeptOfATeacherAtChance) {
  const Values teacher = {1, 0, 0, 0};
  EXPECT_FALSE(compare_paired(teacher, teacher, 0.25).kept);
  // above chance, but so little that resamples fall below it: a ratio without bounds
  const Values barely = {1, 0, 1, 0, 0, 0, 1, 0};
  const PairedComparison result = compare_paired(barely, barely, 0.25);
  EXPECT_TRUE(result.kept);
  EXPECT_FALSE(result.kept_interval);
}

TEST(Statistics, BootstrapIntervalHasTheRightWidth) {
  // The student misses a fifth of what the teacher gets, independently of the rest, and chance is
  // 0: kept is a mean over the teacher's right items, whose deviation is sqrt(0.8 * 0.2 / 320).
  Values teacher, student;
  for (int i = 0; i < 400; ++i) {
    teacher.push_back(i % 5 == 0 ? 0 : 1);
    student.push_back(teacher.back() == 1 && i % 25 < 20 ? 1 : 0);
  }
  const PairedComparison result = compare_paired(student, teacher, 0);
  EXPECT_NEAR(*result.kept, 0.8, 1e-12);
  const double half = 1.96 * std::sqrt(0.8 * 0.2 / 320);
  EXPECT_NEAR(result.kept_interval->low, 0.8 - half, 0.2 * half);
  EXPECT_NEAR(result.kept_interval->high, 0.8 + half, 0.2 * half);
  const PairedComparison again = compare_paired(student, teacher, 0);
  EXPECT_EQ(again.kept_interval->low, result.kept_interval->low);
}

}  // namespace
}  // namespace mambify
