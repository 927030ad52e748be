#include "ops/linear_kl.h"

#include <gtest/gtest.h>

#include "ops/logit_loss.h"
#include "ops/tensors.h"
#include "tolerances.h"

namespace mambify {
namespace {

using namespace testing;

constexpr int64_t kTokens = 53, kWidth = 24, kTeacherWidth = 40, kVocab = 301;

struct Problem {
  at::Tensor hidden = random_leaf({kTokens, kWidth}, 1);
  at::Tensor weight = random_leaf({kVocab, kWidth}, 2, 0.3);
  at::Tensor teacher_hidden = random_leaf({kTokens, kTeacherWidth}, 3).detach();
  at::Tensor teacher_weight = random_leaf({kVocab, kTeacherWidth}, 4, 0.3).detach();
  // Every fifth token has no label, every seventh is masked; so that both means differ.
  at::Tensor labels =
      at::where(at::arange(kTokens).remainder(5).eq(2), -100, at::arange(kTokens) * 37 % kVocab);
  at::Tensor mask = at::arange(kTokens).remainder(7).ne(3);

  LinearKlInputs inputs() const {
    return {hidden, weight, teacher_hidden, teacher_weight, labels, mask, /*places=*/{}};
  }
};

struct Naive {
  at::Tensor kl, ce;
};

Naive naive(const Problem& q, const at::Tensor& hidden, const at::Tensor& weight) {
  const at::Tensor log_q = at::log_softmax(at::mm(hidden, weight.t()), 1);
  const at::Tensor log_p = at::log_softmax(at::mm(q.teacher_hidden, q.teacher_weight.t()), 1);
  const at::Tensor mask = q.mask.to(at::kFloat);
  const at::Tensor labelled = mask * q.labels.ge(0);
  const at::Tensor kl = (log_p.exp() * (log_p - log_q)).sum(1);
  const at::Tensor ce = -log_q.gather(1, q.labels.clamp_min(0).unsqueeze(1)).squeeze(1);
  return {(kl * mask).sum() / mask.sum(), (ce * labelled).sum() / labelled.sum()};
}

TensorFunction fused_loss(const Problem& q, const LinearKlOptions& options) {
  return [&q, options](const auto& in) {
    LinearKlInputs inputs = q.inputs();
    inputs.hidden = in[0];
    inputs.weight = in[1];
    return linear_kl(inputs, options).loss;
  };
}

TensorFunction naive_loss(const Problem& q, const LinearKlOptions& options) {
  return [&q, options](const auto& in) {
    const Naive parts = naive(q, in[0], in[1]);
    return options.kl_weight * parts.kl + options.ce_weight * parts.ce;
  };
}

TEST(LinearKl, MatchesTheNaiveFormWithGradientsInAnyChunks) {
  const Problem q;
  const Tolerance limit = tolerance("cpu", "fp32");
  for (const int64_t chunk : {0, 1, 7, 53, 1000}) {
    for (const auto& [kl, ce] : {std::pair(1.0, 0.0), std::pair(0.0, 2.0), std::pair(0.7, 0.3)}) {
      SCOPED_TRACE(::testing::Message() << "chunk " << chunk << ", KL " << kl << ", CE " << ce);
      const LinearKlOptions options{kl, ce, chunk};
      expect_same_with_gradients(fused_loss(q, options), naive_loss(q, options),
                                 {q.hidden, q.weight}, limit.output, limit.gradient);
    }
  }
}

TEST(LinearKl, GivesGradientsOnlyWhereTheyAreWanted) {
  const Problem q;
  const Tolerance limit = tolerance("cpu", "fp32");
  const at::Tensor hidden = q.hidden.detach(), weight = q.weight.detach();
  expect_same_with_gradients(fused_loss(q, {}), naive_loss(q, {}), {q.hidden, weight}, limit.output,
                             limit.gradient);
  expect_same_with_gradients(fused_loss(q, {}), naive_loss(q, {}), {hidden, q.weight}, limit.output,
                             limit.gradient);
  LinearKlInputs inputs = q.inputs();
  inputs.hidden = hidden;
  inputs.weight = weight;
  EXPECT_FALSE(linear_kl(inputs, {}).loss.requires_grad());
}

TEST(LinearKl, ReportsItsParts) {
  const Problem q;
  const LinearKlResult r = linear_kl(q.inputs(), {0.5, 0.25});
  const Naive parts = naive(q, q.hidden, q.weight);
  EXPECT_NEAR(r.kl.item<double>(), parts.kl.item<double>(), 1e-5);
  EXPECT_NEAR(r.ce.item<double>(), parts.ce.item<double>(), 1e-5);
  EXPECT_EQ(r.counted, q.mask.sum().item<int64_t>());
  const at::Tensor best = at::mm(q.hidden, q.weight.t()).argmax(1);
  const at::Tensor teacher_best = at::mm(q.teacher_hidden, q.teacher_weight.t()).argmax(1);
  EXPECT_EQ(r.agreed.item<double>(), (best.eq(teacher_best) * q.mask).sum().item<int64_t>());
  LinearKlInputs inputs = q.inputs();
  inputs.places = q.mask.nonzero().squeeze(1);
  EXPECT_TRUE(at::equal(linear_kl(inputs, {0.5, 0.25}).loss, r.loss));
}

TEST(LinearKl, AStudentEqualToItsTeacherHasNoDivergence) {
  const Problem q;
  LinearKlInputs inputs = q.inputs();
  inputs.teacher_hidden = q.hidden.detach();
  inputs.teacher_weight = q.weight.detach();
  const LinearKlResult r = linear_kl(inputs, {});
  EXPECT_NEAR(r.kl.item<double>(), 0, 1e-6);
  EXPECT_EQ(r.agreed.item<double>(), r.counted);
}

TEST(LinearKl, WithoutAMaskTheLabelsDecide) {
  const Problem q;
  LinearKlInputs inputs = q.inputs();
  inputs.mask = q.labels.ge(0);
  const double masked = linear_kl(inputs, {1, 1}).loss.item<double>();
  inputs.mask = at::Tensor();
  EXPECT_EQ(linear_kl(inputs, {1, 1}).loss.item<double>(), masked);
  inputs.labels = at::Tensor();
  EXPECT_EQ(linear_kl(inputs, {}).counted, kTokens);
}

TEST(LinearKl, NothingUnmaskedIsAZeroLoss) {
  const Problem q;
  LinearKlInputs inputs = q.inputs();
  inputs.mask = at::zeros({kTokens});
  const LinearKlResult r = linear_kl(inputs, {1, 1});
  r.loss.backward();
  EXPECT_EQ(r.loss.item<float>(), 0);
  EXPECT_EQ(q.hidden.grad().abs().max().item<float>(), 0);
}

TEST(LinearKl, ItsGradientCanBeTakenOnce) {
  const Problem q;
  const at::Tensor loss = linear_kl(q.inputs(), {}).loss;
  loss.backward({}, /*retain_graph=*/true);
  EXPECT_THROW(loss.backward(), c10::Error);
}

TEST(LinearKl, RunsInBfloat16) {
  const Problem q;
  const Tolerance limit = tolerance("cpu", "bf16");
  const auto fused = fused_loss(q, {});
  Problem rounded = q;
  rounded.teacher_hidden = q.teacher_hidden.to(at::kBFloat16);
  rounded.teacher_weight = q.teacher_weight.to(at::kBFloat16);
  const auto leaves = std::vector{q.hidden.detach().to(at::kBFloat16).set_requires_grad(true),
                                  q.weight.detach().to(at::kBFloat16).set_requires_grad(true)};
  expect_same_with_gradients(
      fused_loss(rounded, {}),
      [&](const auto& in) {
        return fused({in[0].to(at::kFloat), in[1].to(at::kFloat)});
      },
      leaves, limit.output, limit.gradient);
}

// The same out of ATen operations.
LogitLossRows composed_logit_loss(const LogitLossChunk& chunk, bool gradient) {
  LogitLossRows rows;
  const at::Tensor log_q = at::log_softmax(chunk.student, 1);
  at::Tensor student_gradient;  // q times the sum of both scales, minus what is subtracted below
  at::Tensor scale = at::zeros({chunk.student.size(0)}, chunk.student.options());
  if (chunk.teacher.defined()) scale += chunk.kl_scale;
  if (chunk.labels.defined()) scale += chunk.ce_scale;
  if (gradient) student_gradient = log_q.exp().mul_(scale.unsqueeze(1));

  if (chunk.teacher.defined()) {
    rows.agrees = at::argmax(chunk.student, 1).eq(at::argmax(chunk.teacher, 1)).to(at::kByte);
    const at::Tensor log_p = at::log_softmax(chunk.teacher, 1), p = log_p.exp();
    rows.kl = (log_p - log_q).mul_(p).sum(1);
    if (gradient) student_gradient.addcmul_(p, chunk.kl_scale.unsqueeze(1), -1);
  }
  if (chunk.labels.defined()) {
    const at::Tensor label = chunk.labels.clamp_min(0).unsqueeze(1);
    const at::Tensor has_label = chunk.labels.ge(0);
    rows.ce = at::where(has_label, log_q.gather(1, label).squeeze(1).neg(),
                        at::zeros({}, log_q.options()));
    if (gradient) student_gradient.scatter_add_(1, label, chunk.ce_scale.neg().unsqueeze(1));
  }
  if (gradient) chunk.student.copy_(student_gradient);
  return rows;
}

TEST(LogitLoss, TheCompositionIsTheKernel) {
  const Tolerance limit = tolerance("cpu", "fp32");
  const Problem q;
  const auto chunk_of = [&] {
    LogitLossChunk chunk;
    chunk.student = at::mm(q.hidden.detach(), q.weight.detach().t());
    chunk.teacher = at::mm(q.teacher_hidden, q.teacher_weight.t());
    chunk.labels = q.labels;
    chunk.kl_scale = random_leaf({kTokens}, 5).detach();
    chunk.ce_scale = random_leaf({kTokens}, 6).detach() * q.labels.ge(0);
    return chunk;
  };
  LogitLossChunk a = chunk_of(), b = chunk_of();
  const LogitLossRows fast = logit_loss(a, /*gradient=*/true);
  const LogitLossRows composed = composed_logit_loss(b, /*gradient=*/true);
  EXPECT_LT(tensor_error(composed.kl, fast.kl), limit.output);
  EXPECT_LT(tensor_error(composed.ce, fast.ce), limit.output);
  EXPECT_TRUE(at::equal(composed.agrees, fast.agrees));
  EXPECT_LT(tensor_error(b.student, a.student), limit.gradient);
}

TEST(LinearKl, RefusesInputsThatDoNotFit) {
  const Problem q;
  LinearKlInputs inputs = q.inputs();
  EXPECT_THROW(linear_kl(inputs, {0, 0}), c10::Error);
  inputs.teacher_weight = q.teacher_weight.narrow(0, 0, kVocab - 1);
  EXPECT_THROW(linear_kl(inputs, {}), c10::Error);
  inputs = q.inputs();
  inputs.teacher_hidden = at::Tensor();
  EXPECT_THROW(linear_kl(inputs, {}), c10::Error);
  inputs = q.inputs();
  inputs.labels = at::Tensor();
  EXPECT_THROW(linear_kl(inputs, {1, 1}), c10::Error);
  inputs.labels = at::full({kTokens}, kVocab);
  EXPECT_THROW(linear_kl(inputs, {1, 1}), c10::Error);
  inputs = q.inputs();
  inputs.mask = at::ones({kTokens + 1});
  EXPECT_THROW(linear_kl(inputs, {}), c10::Error);
}

}  // namespace
}  // namespace mambify
