#include <gtest/gtest.h>
#include <omp.h>

#include <vector>

#include "kernels/causal_conv1d/params.h"
#include "numerics.h"
#include "tolerances.h"

namespace mambify::kernels {
namespace {

using namespace mambify::testing;

// One problem with its inputs; x and y are column slices of wider rows.
template <typename T>
struct Problem {
  std::vector<int64_t> starts;
  int64_t channels;
  int64_t width = 4;
  bool silu = true;
  bool bias_given = true, window_given = true;

  int64_t documents() const { return starts.size() - 1; }
  int64_t tokens() const { return starts.back(); }

  int64_t x_stride = channels + 5;
  std::vector<T> x = random_values<T>(tokens() * x_stride, 1);
  std::vector<T> weight = random_values<T>(channels * width, 2, 0.5);
  std::vector<T> bias = random_values<T>(channels, 3);
  std::vector<T> window = random_values<T>(documents() * channels * (width - 1), 4);
  std::vector<T> dy = random_values<T>(tokens() * channels, 5);
};

template <typename T>
struct Result {
  std::vector<T> y, final_window, dx, dweight, dbias;
};

template <typename T>
using Forward = void (*)(const CausalConv1dParams<T>&);
template <typename T>
using Backward = void (*)(const CausalConv1dBackwardParams<T>&);

template <typename T>
Result<T> run(const Problem<T>& q, Forward<T> forward, Backward<T> backward) {
  const int64_t size = q.tokens() * q.channels;
  Result<T> r{nan_values<T>(size), nan_values<T>(q.window.size()), nan_values<T>(size),
              nan_values<T>(q.weight.size()), nan_values<T>(q.channels)};
  CausalConv1dParams<T> p;
  p.starts = q.starts.data();
  p.documents = q.documents();
  p.channels = q.channels;
  p.width = q.width;
  p.silu = q.silu;
  p.x = q.x.data();
  p.x_stride = q.x_stride;
  p.weight = q.weight.data();
  p.bias = q.bias_given ? q.bias.data() : nullptr;
  p.initial_window = q.window_given ? q.window.data() : nullptr;
  p.y = r.y.data();
  p.y_stride = q.channels;
  p.final_window = r.final_window.data();
  forward(p);
  CausalConv1dBackwardParams<T> b;
  b.forward = p;
  b.dy = q.dy.data();
  b.dx = r.dx.data();
  b.dweight = r.dweight.data();
  b.dbias = r.dbias.data();
  backward(b);
  return r;
}

template <typename T>
Result<T> run_reference(const Problem<T>& q) {
  return run<T>(q, causal_conv1d_forward_reference<T>, causal_conv1d_backward_reference<T>);
}
Result<float> run_cpu(const Problem<float>& q) {
  return run<float>(q, causal_conv1d_forward_cpu, causal_conv1d_backward_cpu);
}

template <typename A, typename B>
void expect_close(const Result<A>& actual, const Result<B>& expected, const Tolerance& limit) {
  EXPECT_LT(max_relative_error(actual.y, expected.y), limit.output);
  EXPECT_EQ(converted<double>(actual.final_window), converted<double>(expected.final_window));
  EXPECT_LT(max_relative_error(actual.dx, expected.dx), limit.gradient);
  EXPECT_LT(max_relative_error(actual.dweight, expected.dweight), limit.gradient);
  EXPECT_LT(max_relative_error(actual.dbias, expected.dbias), limit.gradient);
}

void expect_cpu_matches(const Problem<float>& q) {
  const auto exact = run_reference(
      Problem<double>{q.starts, q.channels, q.width, q.silu, q.bias_given, q.window_given});
  expect_close(run_cpu(q), exact, tolerance("cpu", "fp32"));
  expect_close(run_reference(q), exact, tolerance("cpu", "fp32"));
}

TEST(CausalConv1dKernel, MatchesTheReferenceAtEveryLength) {
  for (const int64_t length : kLengths) {
    for (const int64_t channels : {1, 7, 64, 65, 960}) {
      SCOPED_TRACE(::testing::Message() << length << " tokens, " << channels << " channels");
      expect_cpu_matches({{0, length}, channels});
    }
  }
}

TEST(CausalConv1dKernel, MatchesTheReferenceInEveryForm) {
  for (const int64_t width : {1, 2, 3, 4, 8}) {
    for (const bool silu : {false, true}) {
      for (const bool bias : {false, true}) {
        for (const bool window : {false, true}) {
          SCOPED_TRACE(::testing::Message() << "width " << width << ", silu " << silu << ", bias "
                                            << bias << ", window " << window);
          // An empty document among short ones, one of them shorter than the window.
          expect_cpu_matches({{0, 5, 5, 7, 80, 81}, 70, width, silu, bias, window});
        }
      }
    }
  }
}

TEST(CausalConv1dKernel, ReferenceGradientsAreNumericalOnes) {
  for (const bool silu : {false, true}) {
    Problem<double> q{{0, 2, 9}, 3, 4, silu};
    const auto r = run_reference(q);
    const auto loss = [&] {
      double sum = 0;
      const auto y = run_reference(q).y;
      for (size_t i = 0; i < y.size(); ++i) sum += y[i] * q.dy[i];
      return sum;
    };
    const double limit = tolerance("cpu", "fp64").gradient;
    const auto strided = numerical_gradient(loss, q.x);
    std::vector<double> dx;
    for (int64_t t = 0; t < q.tokens(); ++t) {
      dx.insert(dx.end(), &strided[t * q.x_stride], &strided[t * q.x_stride] + q.channels);
    }
    EXPECT_LT(max_relative_error(r.dx, dx), limit);
    EXPECT_LT(max_relative_error(r.dweight, numerical_gradient(loss, q.weight)), limit);
    EXPECT_LT(max_relative_error(r.dbias, numerical_gradient(loss, q.bias)), limit);
  }
}

// The part of a problem that is one of its documents.
Problem<float> document_alone(const Problem<float>& q, int64_t d) {
  const int64_t begin = q.starts[d], length = q.starts[d + 1] - begin;
  const int64_t window = q.channels * (q.width - 1);
  Problem<float> alone{{0, length}, q.channels, q.width};
  std::copy_n(&q.x[begin * q.x_stride], length * q.x_stride, alone.x.begin());
  std::copy_n(&q.window[d * window], window, alone.window.begin());
  std::copy_n(&q.dy[begin * q.channels], length * q.channels, alone.dy.begin());
  return alone;
}

TEST(CausalConv1dKernel, PackedDocumentsAreThoseAlone) {
  const Problem<float> packed{{0, 1, 4, 67, 131, 400}, 70};
  const auto together = run_cpu(packed);
  const int64_t window = 70 * 3;
  for (int64_t d = 0; d < packed.documents(); ++d) {
    const auto alone = run_cpu(document_alone(packed, d));
    const int64_t first = packed.starts[d] * 70, last = packed.starts[d + 1] * 70;
    EXPECT_EQ(alone.y, std::vector(&together.y[first], &together.y[0] + last));
    EXPECT_EQ(alone.dx, std::vector(&together.dx[first], &together.dx[0] + last));
    EXPECT_EQ(alone.final_window, std::vector(&together.final_window[d * window],
                                              &together.final_window[0] + (d + 1) * window));
  }
}

TEST(CausalConv1dKernel, ChunksThroughTheWindowAreTheWhole) {
  const int64_t channels = 70, length = 130;
  const Problem<float> whole{{0, length}, channels};
  const auto expected = run_cpu(whole);
  std::vector<float> window = whole.window, y(length * channels);
  int64_t t = 0;
  for (const int64_t chunk : {1, 1, 2, 60, 1, 65}) {
    const std::vector<int64_t> starts{0, chunk};
    CausalConv1dParams<float> p;
    p.starts = starts.data();
    p.documents = 1;
    p.channels = channels;
    p.width = 4;
    p.silu = true;
    p.x = &whole.x[t * whole.x_stride];
    p.x_stride = whole.x_stride;
    p.weight = whole.weight.data();
    p.bias = whole.bias.data();
    p.initial_window = window.data();
    p.final_window = window.data();
    p.y = &y[t * channels];
    p.y_stride = channels;
    causal_conv1d_forward_cpu(p);
    t += chunk;
  }
  ASSERT_EQ(t, length);
  EXPECT_EQ(y, expected.y);
  EXPECT_EQ(window, expected.final_window);
}

TEST(CausalConv1dKernel, ThreadsChangeNoBit) {
  const Problem<float> q{{0, 100, 700}, 200};
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto one = run_cpu(q);
  omp_set_num_threads(3);
  const auto three = run_cpu(q);
  omp_set_num_threads(threads);
  EXPECT_EQ(one.y, three.y);
  EXPECT_EQ(one.dx, three.dx);
  EXPECT_EQ(one.dweight, three.dweight);
}

}  // namespace
}  // namespace mambify::kernels
