#include "core/progress.h"

#include <gtest/gtest.h>

namespace mambify {
namespace {

TEST(Progress, KeepsStdoutFreeAndStderrQuietWhenSwitchedOff) {
  Progress::set_enabled(false);
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  {
    Progress progress("reading", 10, "files");
    for (int i = 0; i <= 10; ++i) progress.update(i);
  }
  Progress::set_enabled(true);
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace mambify
