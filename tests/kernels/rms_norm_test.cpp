#include <gtest/gtest.h>

#include <vector>

#include "kernels/bf16_values.h"
#include "kernels/rms_norm/params.h"
#include "numerics.h"
#include "tolerances.h"

namespace mambify::kernels {
namespace {

using namespace mambify::testing;

// One problem with its inputs; x and z are column slices of wider rows.
template <typename T>
struct Problem {
  int64_t rows, channels, group_size;
  bool gated;
  int64_t x_stride = channels + 3, z_stride = channels + 5;
  std::vector<T> x = random_values<T>(rows * x_stride, 1);
  std::vector<T> z = random_values<T>(rows * z_stride, 2);
  std::vector<T> weight = random_values<T>(channels, 3, 0.3, 1);
  std::vector<T> dy = random_values<T>(rows * channels, 4);
};

template <typename T>
struct Result {
  std::vector<T> y, inverse_rms, dx, dz, dweight;
};

template <typename T>
using Forward = void (*)(const RmsNormParams<T>&);
template <typename T>
using Backward = void (*)(const RmsNormBackwardParams<T>&);

template <typename T>
Result<T> run(const Problem<T>& q, Forward<T> forward, Backward<T> backward) {
  const int64_t size = q.rows * q.channels;
  Result<T> r{nan_values<T>(size), nan_values<T>(size / q.group_size), nan_values<T>(size),
              nan_values<T>(size), nan_values<T>(q.channels)};
  RmsNormParams<T> p;
  p.rows = q.rows;
  p.channels = q.channels;
  p.group_size = q.group_size;
  p.eps = T(1e-5);
  p.x = q.x.data();
  p.x_stride = q.x_stride;
  p.z = q.gated ? q.z.data() : nullptr;
  p.z_stride = q.z_stride;
  p.weight = q.weight.data();
  p.y = r.y.data();
  p.inverse_rms = r.inverse_rms.data();
  forward(p);
  RmsNormBackwardParams<T> b;
  b.forward = p;
  b.dy = q.dy.data();
  b.dx = r.dx.data();
  b.dz = r.dz.data();
  b.dweight = r.dweight.data();
  backward(b);
  if (!q.gated) r.dz.assign(size, 0);
  return r;
}

template <typename T>
Result<T> run_reference(const Problem<T>& q) {
  return run<T>(q, rms_norm_forward_reference<T>, rms_norm_backward_reference<T>);
}
Result<float> run_cpu(const Problem<float>& q) {
  return run<float>(q, rms_norm_forward_cpu, rms_norm_backward_cpu);
}

template <typename A, typename B>
void expect_close(const Result<A>& actual, const Result<B>& expected, const Tolerance& limit) {
  EXPECT_LT(max_relative_error(actual.y, expected.y), limit.output);
  EXPECT_LT(max_relative_error(actual.inverse_rms, expected.inverse_rms), limit.output);
  EXPECT_LT(max_relative_error(actual.dx, expected.dx), limit.gradient);
  EXPECT_LT(max_relative_error(actual.dz, expected.dz), limit.gradient);
  EXPECT_LT(max_relative_error(actual.dweight, expected.dweight), limit.gradient);
}

struct Shape {
  int64_t channels, group_size;
};
// Not one channel: its gradient is zero but for eps, so that only rounding would be compared.
constexpr Shape kShapes[] = {{3, 3}, {7, 7}, {30, 15}, {64, 64}, {576, 64}, {576, 576}};

TEST(RmsNormKernel, MatchesTheReferenceInFloatAndDouble) {
  for (const int64_t rows : kLengths) {
    for (const Shape& shape : kShapes) {
      for (const bool gated : {false, true}) {
        SCOPED_TRACE(::testing::Message()
                     << rows << " rows, " << shape.channels << " channels, gated " << gated);
        const Problem<float> q{rows, shape.channels, shape.group_size, gated};
        const auto exact =
            run_reference(Problem<double>{rows, shape.channels, shape.group_size, gated});
        const Tolerance limit = tolerance("cpu", "fp32");
        expect_close(run_cpu(q), exact, limit);
        expect_close(run_reference(q), exact, limit);
      }
    }
  }
}

TEST(RmsNormKernel, ReferenceGradientsAreNumericalOnes) {
  for (const bool gated : {false, true}) {
    Problem<double> q{3, 10, 5, gated};
    const auto r = run_reference(q);
    const auto loss = [&] {
      double sum = 0;
      const auto y = run_reference(q).y;
      for (size_t i = 0; i < y.size(); ++i) sum += y[i] * q.dy[i];
      return sum;
    };
    const auto dense = [&](const std::vector<double>& strided, int64_t stride) {
      std::vector<double> rows;
      for (int64_t i = 0; i < q.rows; ++i) {
        rows.insert(rows.end(), &strided[i * stride], &strided[i * stride] + q.channels);
      }
      return rows;
    };
    const double limit = tolerance("cpu", "fp64").gradient;
    EXPECT_LT(max_relative_error(r.dx, dense(numerical_gradient(loss, q.x), q.x_stride)), limit);
    EXPECT_LT(max_relative_error(r.dz, dense(numerical_gradient(loss, q.z), q.z_stride)), limit);
    EXPECT_LT(max_relative_error(r.dweight, numerical_gradient(loss, q.weight)), limit);
  }
}

TEST(RmsNormKernel, Bf16IsRoundedOnce) {
  for (const Shape& shape : kShapes) {
    for (const bool gated : {false, true}) {
      const Problem<float> q{37, shape.channels, shape.group_size, gated};
      const auto x = narrowed<Bf16>(q.x), z = narrowed<Bf16>(q.z),
                 weight = narrowed<Bf16>(q.weight);
      Problem<float> wide = q;
      wide.x = widened(x);
      wide.z = widened(z);
      wide.weight = widened(weight);
      std::vector<Bf16> y(q.rows * q.channels);
      std::vector<float> inverse_rms(y.size());
      rms_norm_forward_cpu(RmsNormParams<Bf16>{.rows = q.rows,
                                               .channels = q.channels,
                                               .group_size = q.group_size,
                                               .eps = 1e-5f,
                                               .x = x.data(),
                                               .x_stride = q.x_stride,
                                               .z = gated ? z.data() : nullptr,
                                               .z_stride = q.z_stride,
                                               .weight = weight.data(),
                                               .y = y.data(),
                                               .inverse_rms = inverse_rms.data()});
      const auto expected = run_cpu(wide);
      EXPECT_LT(max_relative_error(widened(y), expected.y), output_tolerance(Bf16{}));
      EXPECT_LT(share_of_different(widened(y), widened(narrowed<Bf16>(expected.y))), 5e-3);
      inverse_rms.resize(expected.inverse_rms.size());
      EXPECT_LT(max_relative_error(inverse_rms, expected.inverse_rms), output_tolerance(0.0f));
    }
  }
}

TEST(RmsNormKernel, RowsDoNotDependOnTheirNeighbours) {
  const Problem<float> all{65, 576, 64, true};
  const auto together = run_cpu(all);
  for (const int64_t row : {0, 17, 64}) {
    Problem<float> alone{1, 576, 64, true};
    std::copy_n(&all.x[row * all.x_stride], 576, alone.x.begin());
    std::copy_n(&all.z[row * all.z_stride], 576, alone.z.begin());
    std::copy_n(&all.dy[row * 576], 576, alone.dy.begin());
    const auto r = run_cpu(alone);
    EXPECT_EQ(r.y, std::vector(&together.y[row * 576], &together.y[row * 576] + 576));
    EXPECT_EQ(r.dx, std::vector(&together.dx[row * 576], &together.dx[row * 576] + 576));
    EXPECT_EQ(r.dz, std::vector(&together.dz[row * 576], &together.dz[row * 576] + 576));
  }
}

}  // namespace
}  // namespace mambify::kernels
