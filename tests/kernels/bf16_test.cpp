#include "kernels/bf16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace mambify::kernels {
namespace {

float rounded(float x) {
  Bf16 place;
  store(x, place);
  return to_float(place);
}

TEST(Bf16, RoundsToTheNearestAndTiesToEven) {
  constexpr float kStep = 1.0f / 128;  // between neighbours from 1 on
  EXPECT_EQ(rounded(1), 1);
  EXPECT_EQ(rounded(-3.5f), -3.5f);
  EXPECT_EQ(rounded(1 + 0.49f * kStep), 1);
  EXPECT_EQ(rounded(1 + 0.51f * kStep), 1 + kStep);
  EXPECT_EQ(rounded(1 + 0.5f * kStep), 1);
  EXPECT_EQ(rounded(1 + 1.5f * kStep), 1 + 2 * kStep);
  EXPECT_TRUE(std::signbit(rounded(-0.0f)));
}

TEST(Bf16, KeepsWhatIsNotFinite) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(rounded(kInfinity), kInfinity);
  EXPECT_EQ(rounded(-kInfinity), -kInfinity);
  EXPECT_EQ(rounded(std::numeric_limits<float>::max()), kInfinity);
  for (const uint32_t nan : {0x7f800001u, 0x7fffffffu, 0xff800001u, 0xffffffffu}) {
    EXPECT_TRUE(std::isnan(rounded(std::bit_cast<float>(nan))));
  }
}

}  // namespace
}  // namespace mambify::kernels
