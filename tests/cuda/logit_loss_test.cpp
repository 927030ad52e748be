#include "cuda/device_values.h"
#include "kernels/logit_loss/params.h"

namespace mambify::kernels {
namespace {

using namespace mambify::testing;

template <typename T>
using CudaLogitLoss = CudaKernelTest<T>;
TYPED_TEST_SUITE(CudaLogitLoss, DeviceTypes);

template <typename T>
struct Problem {
  int64_t rows, vocab;
  bool with_teacher = true, with_labels = true, gradient = true;
  Input<T> student = Input<T>::random(rows * vocab, 1, 3);
  Input<T> teacher = Input<T>::random(rows * vocab, 2, 3, 50);
  Input<float> kl_scale = Input<float>::random(rows, 3);
  Input<float> ce_scale = Input<float>::random(rows, 4);
};

template <typename T>
struct Result {
  explicit Result(const Problem<T>& q)
      : kl(q.with_teacher ? q.rows : 0), ce(q.with_labels ? q.rows : 0) {
    gradient.device = DeviceArray<T>(q.student.device.download());
    gradient.exact = q.student.exact;
  }
  Output<float> kl, ce;
  Input<T> gradient;  // in the place of the student's logits
  std::vector<uint8_t> agrees, exact_agrees;

  double gradient_error() const {
    return max_relative_error(widened(gradient.device.download()), gradient.exact);
  }
};

template <typename T>
Result<T> run(Problem<T>& q) {
  Result<T> r(q);
  std::vector<int64_t> labels;
  for (int64_t row = 0; row < q.rows; ++row) {
    labels.push_back(row % 3 == 1 ? -100 : (row * 7919) % q.vocab);
  }
  const DeviceArray<int64_t> device_labels(labels);
  const auto agrees = DeviceArray<uint8_t>::poisoned(q.rows);
  r.exact_agrees.assign(q.rows, 77);
  const auto set = [&](auto& p, auto* student, auto* teacher) {
    p.rows = q.rows;
    p.vocab = q.vocab;
    p.gradient = q.gradient;
    p.student = student;
    p.teacher = q.with_teacher ? teacher : nullptr;
  };
  LogitLossParams<T> p;
  set(p, r.gradient.device.data(), q.teacher.device.data());
  p.labels = q.with_labels ? device_labels.data() : nullptr;
  p.kl_scale = q.kl_scale.device.data();
  p.ce_scale = q.ce_scale.device.data();
  p.kl = r.kl.device.data();
  p.ce = r.ce.device.data();
  p.agrees = agrees.data();
  logit_loss_cuda(p, nullptr);

  LogitLossParams<double> e;
  set(e, r.gradient.exact.data(), q.teacher.exact.data());
  e.labels = q.with_labels ? labels.data() : nullptr;
  e.kl_scale = q.kl_scale.exact.data();
  e.ce_scale = q.ce_scale.exact.data();
  e.kl = r.kl.exact.data();
  e.ce = r.ce.exact.data();
  e.agrees = r.exact_agrees.data();
  logit_loss_reference(e);
  if (q.with_teacher) {
    r.agrees = agrees.download();
  } else {
    r.agrees = r.exact_agrees;
  }
  return r;
}

// kl and ce are fp32 sums over the same logits, whatever their type.
TYPED_TEST(CudaLogitLoss, MatchesItsDefinition) {
  for (const int64_t vocab : {1, 3, 63, 64, 65, 500, 8200, 49152, 128256}) {
    for (const int which : {1, 2, 3}) {
      const bool teacher = which & 1, labels = which & 2;
      SCOPED_TRACE(::testing::Message()
                   << vocab << " words, teacher " << teacher << ", labels " << labels);
      Problem<TypeParam> q{5, vocab, teacher, labels};
      const auto r = run(q);
      EXPECT_LT(r.kl.error(), cuda_sum_tolerance().output);
      EXPECT_LT(r.ce.error(), cuda_sum_tolerance().output);
      EXPECT_EQ(r.agrees, r.exact_agrees);
      if (vocab > 1) {  // with one word the gradient is zero but for rounding
        EXPECT_LT(r.gradient_error(), cuda_tolerance<TypeParam>().gradient);
      }
    }
  }
}

TYPED_TEST(CudaLogitLoss, LeavesTheLogitsWhereNoGradientIsWanted) {
  Problem<TypeParam> q{3, 5000, true, true, /*gradient=*/false};
  const auto r = run(q);
  EXPECT_LT(r.kl.error(), cuda_sum_tolerance().output);
  EXPECT_EQ(widened(r.gradient.device.download()), widened(q.student.device.download()));
}

// The largest logits come late and in every part of the row.
TYPED_TEST(CudaLogitLoss, MatchesItsDefinitionOnRisingLogits) {
  Problem<TypeParam> q{2, 49152};
  std::vector<float> student, teacher;
  for (int64_t i = 0; i < q.rows * q.vocab; ++i) {
    student.push_back(static_cast<float>(i % q.vocab) * 1e-3f);
    teacher.push_back(20 - static_cast<float>(i * 7919 % q.vocab) * 1e-3f);
  }
  q.student = Input<TypeParam>(student);
  q.teacher = Input<TypeParam>(teacher);
  const auto r = run(q);
  EXPECT_LT(r.kl.error(), cuda_sum_tolerance().output);
  EXPECT_EQ(r.agrees, r.exact_agrees);
  EXPECT_LT(r.gradient_error(), cuda_tolerance<TypeParam>().gradient);
}

TYPED_TEST(CudaLogitLoss, SmallDivergencesKeepTheirDigits) {
  Problem<TypeParam> q{4, 49152};
  std::vector<float> student = widened(q.teacher.device.download());
  const std::vector<float> noise = random_values<float>(q.rows * q.vocab, 9, 0.03);
  for (size_t i = 0; i < student.size(); ++i) student[i] += noise[i];
  q.student = Input<TypeParam>(student);
  const auto r = run(q);
  const std::vector<float> kl = r.kl.device.download();
  for (int row = 0; row < 4; ++row) EXPECT_NEAR(kl[row], r.kl.exact[row], 2e-6);
}

TYPED_TEST(CudaLogitLoss, HasTheSameBitsEachTime) {
  Problem<TypeParam> q{40, 8200};
  const auto first = run(q), second = run(q);
  EXPECT_EQ(first.kl.bytes(), second.kl.bytes());
  EXPECT_EQ(widened(first.gradient.device.download()), widened(second.gradient.device.download()));
}

}  // namespace
}  // namespace mambify::kernels
