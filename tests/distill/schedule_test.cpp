#include "distill/schedule.h"

#include <gtest/gtest.h>

namespace mambify {
namespace {

StageSection stage(ScheduleKind kind) {
  StageSection section;
  section.schedule = kind;
  section.warmup = 0.1;
  section.decay = 0.25;
  section.final_rate = 0.2;
  return section;
}

TEST(Schedule, WarmsUpFromATenth) {
  for (const ScheduleKind kind :
       {ScheduleKind::cosine, ScheduleKind::wsd, ScheduleKind::constant}) {
    EXPECT_NEAR(rate_factor(stage(kind), 0), 0.1, 1e-12);
    EXPECT_NEAR(rate_factor(stage(kind), 0.05), 0.55, 1e-12);
    EXPECT_NEAR(rate_factor(stage(kind), 0.1), 1, 1e-12);
  }
}

TEST(Schedule, CosineFallsToTheFinalRate) {
  const StageSection cosine = stage(ScheduleKind::cosine);
  EXPECT_NEAR(rate_factor(cosine, 0.55), 0.6, 1e-12);
  EXPECT_NEAR(rate_factor(cosine, 1), 0.2, 1e-12);
}

TEST(Schedule, WsdStaysThenFallsLinearly) {
  const StageSection wsd = stage(ScheduleKind::wsd);
  EXPECT_EQ(rate_factor(wsd, 0.5), 1);
  EXPECT_EQ(rate_factor(wsd, 0.75), 1);
  EXPECT_NEAR(rate_factor(wsd, 0.875), 0.6, 1e-12);
  EXPECT_NEAR(rate_factor(wsd, 1), 0.2, 1e-12);
}

TEST(Schedule, ConstantStays) { EXPECT_EQ(rate_factor(stage(ScheduleKind::constant), 1), 1); }

TEST(Schedule, ExtremesOfWarmUpAndDecayAreDefined) {
  StageSection section = stage(ScheduleKind::wsd);
  section.warmup = 0;
  section.decay = 0;
  EXPECT_EQ(rate_factor(section, 0), 1);
  EXPECT_EQ(rate_factor(section, 1), 1);
  section.schedule = ScheduleKind::cosine;
  section.warmup = 1;
  EXPECT_NEAR(rate_factor(section, 1), 0.2, 1e-12);
}

}  // namespace
}  // namespace mambify
