#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/bf16_values.h"
#include "kernels/rotary/params.h"
#include "numerics.h"
#include "tolerances.h"

namespace mambify::kernels {
namespace {

using testing::max_relative_error;
using testing::nan_values;
using testing::random_values;

constexpr void (*kRotary)(const RotaryParams<float>&) = rotary_cpu;

// Angles of any size; tokens further apart than they are wide.
struct Problem {
  Problem(int64_t tokens, int64_t heads, int64_t width) {
    const auto angles = random_values<double>(tokens * width / 2, 1, 10);
    for (double angle : angles) {
      cos.push_back(static_cast<float>(std::cos(angle)));
      sin.push_back(static_cast<float>(std::sin(angle)));
    }
    x = random_values<float>(tokens * (heads * width + 3), 2);
    p = {.tokens = tokens,
         .heads = heads,
         .width = width,
         .x = x.data(),
         .x_stride = heads * width + 3,
         .cos = cos.data(),
         .sin = sin.data()};
  }

  template <typename Run>
  std::vector<float> result(RotaryParams<float> params, const Run& run) const {
    std::vector<float> y = nan_values<float>(params.tokens * params.heads * params.width);
    params.y = y.data();
    run(params);
    return y;
  }

  RotaryParams<float> p;
  std::vector<float> x, cos, sin;
};

TEST(RotaryKernel, EqualsItsDefinition) {
  for (const int64_t width : {2, 6, 16, 64, 130}) {
    Problem problem(7, 3, width);
    for (const bool inverse : {false, true}) {
      problem.p.inverse = inverse;
      EXPECT_LT(max_relative_error(problem.result(problem.p, kRotary),
                                   problem.result(problem.p, rotary_reference<float>)),
                testing::tolerance("cpu", "fp32").output)
          << width;
    }
  }
}

TEST(RotaryKernel, Bf16IsRoundedOnce) {
  Problem problem(7, 3, 22);
  const auto narrow = narrowed<Bf16>(problem.x);
  problem.x = widened(narrow);
  problem.p.x = problem.x.data();
  std::vector<Bf16> y(7 * 3 * 22);
  rotary_cpu(RotaryParams<Bf16>{.tokens = 7,
                                .heads = 3,
                                .width = 22,
                                .x = narrow.data(),
                                .x_stride = problem.p.x_stride,
                                .cos = problem.p.cos,
                                .sin = problem.p.sin,
                                .y = y.data()});
  EXPECT_EQ(widened(y), widened(narrowed<Bf16>(problem.result(problem.p, kRotary))));
}

TEST(RotaryKernel, TurnsBack) {
  const Problem there(5, 2, 64);
  const std::vector<float> turned = there.result(there.p, kRotary);
  RotaryParams<float> back = there.p;
  back.x = turned.data();
  back.x_stride = 2 * 64;
  back.inverse = true;
  const std::vector<float> y = there.result(back, kRotary);
  for (int64_t t = 0; t < 5; ++t) {
    const auto row = there.x.begin() + t * there.p.x_stride;
    const std::vector<float> expected(row, row + 2 * 64);
    const std::vector<float> actual(y.begin() + t * 2 * 64, y.begin() + (t + 1) * 2 * 64);
    EXPECT_LT(max_relative_error(actual, expected), 1e-6);
  }
}

TEST(RotaryKernel, ATokenHasTheSameBitsAlone) {
  const Problem problem(9, 3, 22);
  const std::vector<float> together = problem.result(problem.p, kRotary);
  for (int64_t t = 0; t < 9; ++t) {
    RotaryParams<float> alone = problem.p;
    alone.tokens = 1;
    alone.x += t * alone.x_stride;
    alone.cos += t * 11;
    alone.sin += t * 11;
    const std::vector<float> y = problem.result(alone, kRotary);
    EXPECT_TRUE(std::equal(y.begin(), y.end(), together.begin() + t * 3 * 22)) << t;
  }
}

}  // namespace
}  // namespace mambify::kernels
