#include <gtest/gtest.h>

#include <vector>

#include "kernels/logit_loss/params.h"
#include "numerics.h"
#include "tolerances.h"

namespace mambify::kernels {
namespace {

using namespace mambify::testing;

template <typename T>
struct Problem {
  int64_t rows, vocab;
  bool with_teacher = true, with_labels = true;
  std::vector<T> student = random_values<T>(rows * vocab, 1, 3);
  std::vector<T> teacher = random_values<T>(rows * vocab, 2, 3, 50);
  std::vector<T> kl_scale = random_values<T>(rows, 3);
  std::vector<T> ce_scale = random_values<T>(rows, 4);
  std::vector<int64_t> labels = [this] {
    std::vector<int64_t> l(rows);
    for (int64_t row = 0; row < rows; ++row) l[row] = row % 3 == 1 ? -100 : (row * 7919) % vocab;
    return l;
  }();
};

template <typename T>
struct Result {
  std::vector<T> kl, ce, gradient;
  std::vector<uint8_t> agrees;
};

template <typename T>
Result<T> run(const Problem<T>& q, void (*kernel)(const LogitLossParams<T>&)) {
  Result<T> r{nan_values<T>(q.rows), nan_values<T>(q.rows), q.student,
              std::vector<uint8_t>(q.rows, 77)};
  std::vector<T> teacher = q.teacher;
  LogitLossParams<T> p;
  p.rows = q.rows;
  p.vocab = q.vocab;
  p.gradient = true;
  p.student = r.gradient.data();
  p.teacher = q.with_teacher ? teacher.data() : nullptr;
  p.labels = q.with_labels ? q.labels.data() : nullptr;
  p.kl_scale = q.kl_scale.data();
  p.ce_scale = q.ce_scale.data();
  p.kl = r.kl.data();
  p.ce = r.ce.data();
  p.agrees = r.agrees.data();
  kernel(p);
  if (!q.with_teacher) r.kl.assign(q.rows, 0);
  if (!q.with_labels) r.ce.assign(q.rows, 0);
  return r;
}

TEST(LogitLossKernel, MatchesTheReference) {
  const Tolerance limit = tolerance("cpu", "fp32");
  for (const int64_t vocab : {1, 3, 63, 64, 65, 500, 5000}) {
    for (const int which : {1, 2, 3}) {
      const bool teacher = which & 1, labels = which & 2;
      SCOPED_TRACE(::testing::Message()
                   << vocab << " words, teacher " << teacher << ", labels " << labels);
      const auto exact =
          run<double>(Problem<double>{5, vocab, teacher, labels}, logit_loss_reference<double>);
      const Problem<float> q{5, vocab, teacher, labels};
      for (const auto& r : {run<float>(q, logit_loss_cpu), run<float>(q, logit_loss_reference)}) {
        EXPECT_LT(max_relative_error(r.kl, exact.kl), limit.output);
        EXPECT_LT(max_relative_error(r.ce, exact.ce), limit.output);
        EXPECT_EQ(r.agrees, exact.agrees);
        if (vocab > 1) {  // with one word the gradient is zero but for rounding
          EXPECT_LT(max_relative_error(r.gradient, exact.gradient), limit.gradient);
        }
      }
    }
  }
}

TEST(LogitLossKernel, SmallDivergencesKeepTheirDigits) {
  Problem<double> exact_problem{4, 5000};
  Problem<float> q{4, 5000};
  for (size_t i = 0; i < q.student.size(); ++i) {
    q.student[i] = q.teacher[i] + 0.02f * q.student[i];
    exact_problem.student[i] = q.student[i];
  }
  const auto exact = run<double>(exact_problem, logit_loss_reference<double>);
  const auto fast = run<float>(q, logit_loss_cpu);
  EXPECT_LT(exact.kl[0], 0.01);
  for (int row = 0; row < 4; ++row) EXPECT_NEAR(fast.kl[row], exact.kl[row], 1e-6);
}

TEST(LogitLossKernel, ReferenceGradientIsTheNumericalOne) {
  Problem<double> q{3, 11};
  const auto loss = [&] {
    const auto r = run<double>(q, logit_loss_reference<double>);
    double sum = 0;
    for (int64_t row = 0; row < q.rows; ++row) {
      sum += q.kl_scale[row] * r.kl[row] + q.ce_scale[row] * r.ce[row];
    }
    return sum;
  };
  const auto gradient = run<double>(q, logit_loss_reference<double>).gradient;
  EXPECT_LT(max_relative_error(gradient, numerical_gradient(loss, q.student)),
            tolerance("cpu", "fp64").gradient);
}

TEST(LogitLossKernel, OnlyEqualPlacesOfTheFirstLargestAgree) {
  Problem<float> q{2, 64, true, false};
  q.student.assign(128, 0);
  q.teacher.assign(128, 0);
  q.student[5] = q.student[9] = 1;
  q.teacher[5] = 2;
  q.student[64 + 9] = 1;
  q.teacher[64 + 5] = 2;
  EXPECT_EQ(run<float>(q, logit_loss_cpu).agrees, (std::vector<uint8_t>{1, 0}));
}

}  // namespace
}  // namespace mambify::kernels
