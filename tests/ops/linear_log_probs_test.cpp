#include "ops/linear_log_probs.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ops/tensors.h"
#include "tolerances.h"

namespace mambify {
namespace {

using namespace testing;

constexpr int64_t kTokens = 53, kWidth = 24, kVocab = 301;

struct Problem {
  at::Tensor hidden = random_leaf({kTokens, kWidth}, 1);
  at::Tensor weight = random_leaf({kVocab, kWidth}, 2, 0.3);
  // A label that is not asked for may be anything.
  at::Tensor labels =
      at::where(at::arange(kTokens).remainder(5).eq(2), -100, at::arange(kTokens) * 37 % kVocab);
  at::Tensor places = labels.ge(0).nonzero().squeeze(1);
};

TensorFunction chunked(const Problem& q, int64_t chunk) {
  return [&q, chunk](const auto& in) {
    return linear_log_probs({in[0], in[1], q.labels, q.places}, chunk);
  };
}

TensorFunction naive(const Problem& q) {
  return [&q](const auto& in) {
    const at::Tensor all = at::log_softmax(at::mm(in[0], in[1].t()).to(at::kFloat), 1);
    return all.gather(1, q.labels.clamp_min(0).unsqueeze(1)).squeeze(1).index_select(0, q.places);
  };
}

// The gradient that comes in has both signs.
TEST(LinearLogProbs, MatchTheNaiveFormWithGradientsInAnyChunks) {
  const Problem q;
  const Tolerance limit = tolerance("cpu", "fp32");
  for (const int64_t chunk : {0, 1, 7, 53, 1000}) {
    SCOPED_TRACE(chunk);
    expect_same_with_gradients(chunked(q, chunk), naive(q), {q.hidden, q.weight}, limit.output,
                               limit.gradient);
  }
}

TEST(LinearLogProbs, GiveGradientsOnlyWhereTheyAreWanted) {
  const Problem q;
  const Tolerance limit = tolerance("cpu", "fp32");
  const at::Tensor hidden = q.hidden.detach(), weight = q.weight.detach();
  expect_same_with_gradients(chunked(q, 9), naive(q), {q.hidden, weight}, limit.output,
                             limit.gradient);
  expect_same_with_gradients(chunked(q, 9), naive(q), {hidden, q.weight}, limit.output,
                             limit.gradient);
  EXPECT_FALSE(linear_log_probs({hidden, weight, q.labels, q.places}).requires_grad());
}

TEST(LinearLogProbs, GradientsAreThoseOfFiniteDifferences) {
  const Problem q;
  const at::Tensor counts = random_leaf({q.places.size(0)}, 3).detach();
  const auto value = [&](const at::Tensor& hidden, const at::Tensor& weight) {
    return (linear_log_probs({hidden, weight, q.labels, q.places}, 11) * counts).sum();
  };
  value(q.hidden, q.weight).backward();
  const at::NoGradGuard no_grad;
  const at::Tensor along_hidden = random_leaf({kTokens, kWidth}, 5).detach();
  const at::Tensor along_weight = random_leaf({kVocab, kWidth}, 6).detach();
  constexpr double kStep = 1e-3;
  const double difference =
      (value(q.hidden + kStep * along_hidden, q.weight + kStep * along_weight) -
       value(q.hidden - kStep * along_hidden, q.weight - kStep * along_weight))
          .item<double>() /
      (2 * kStep);
  const double expected = (q.hidden.grad() * along_hidden).sum().item<double>() +
                          (q.weight.grad() * along_weight).sum().item<double>();
  EXPECT_NEAR(difference / expected, 1, 2e-3);
}

TEST(LinearLogProbs, NoPlaceIsNoValueAndNoGradient) {
  const Problem q;
  const at::Tensor none =
      linear_log_probs({q.hidden, q.weight, q.labels, q.places.narrow(0, 0, 0)});
  EXPECT_EQ(none.numel(), 0);
  none.sum().backward();
  EXPECT_EQ(q.hidden.grad().abs().max().item<float>(), 0);
}

TEST(LinearLogProbs, RunInBfloat16) {
  const Problem q;
  const Tolerance limit = tolerance("cpu", "bf16");
  const std::vector leaves = {q.hidden.detach().to(at::kBFloat16).set_requires_grad(true),
                              q.weight.detach().to(at::kBFloat16).set_requires_grad(true)};
  const auto in_float = [&](const auto& in) {
    return chunked(q, 0)({in[0].to(at::kFloat), in[1].to(at::kFloat)});
  };
  expect_same_with_gradients(chunked(q, 0), in_float, leaves, limit.output, limit.gradient);
}

TEST(LinearLogProbs, RefuseInputsThatDoNotFit) {
  const Problem q;
  EXPECT_THROW(linear_log_probs({q.hidden, q.weight, q.labels.narrow(0, 0, 3), q.places}),
               c10::Error);
  EXPECT_THROW(linear_log_probs({q.hidden, q.weight.narrow(1, 0, 3), q.labels, q.places}),
               c10::Error);
  EXPECT_THROW(linear_log_probs({q.hidden, q.weight, q.labels, at::arange(kTokens)}), c10::Error);
  EXPECT_THROW(linear_log_probs({q.hidden, q.weight, at::full({kTokens}, kVocab), q.places}),
               c10::Error);
}

}  // namespace
}  // namespace mambify
