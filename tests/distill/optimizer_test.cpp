#include "distill/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace mambify {
namespace {

StageSection settings() {
  StageSection stage;
  stage.betas = {0.9, 0.99};
  stage.epsilon = 1e-6;
  return stage;
}

TrainedParameter parameter(const std::string& name, at::Tensor value, double rate, double decay) {
  at::Tensor compute = value;
  compute.set_requires_grad(true);
  return {name, value, compute, rate, decay};
}

void give_gradient(AdamW& optimizer, at::Tensor& tensor, double value) {
  tensor.mutable_grad() = at::full_like(tensor, value);
  optimizer.collect_gradients();
}

// One weight, by the formulas of the paper.
struct ByHand {
  double weight, mean = 0, square = 0;
  int step = 0;

  void update(double gradient, double rate, double decay, const StageSection& stage) {
    ++step;
    mean = stage.betas[0] * mean + (1 - stage.betas[0]) * gradient;
    square = stage.betas[1] * square + (1 - stage.betas[1]) * gradient * gradient;
    const double mean_hat = mean / (1 - std::pow(stage.betas[0], step));
    const double square_hat = square / (1 - std::pow(stage.betas[1], step));
    weight -= rate * decay * weight;
    weight -= rate * mean_hat / (std::sqrt(square_hat) + stage.epsilon);
  }
};

TEST(AdamW, FollowsTheFormulasPerGroup) {
  const StageSection stage = settings();
  at::Tensor a = at::full({3, 2}, 0.5), b = at::full({4}, -1.0);
  AdamW optimizer({parameter("a", a, 0.1, 0.01), parameter("b", b, 0.02, 0)}, stage);
  ByHand hand_a{0.5}, hand_b{-1.0};
  const double gradients[] = {0.3, -2.0, 0.05, 1.0};
  for (int i = 0; i < 4; ++i) {
    const double factor = 1.0 / (i + 1), scale = i == 1 ? 0.25 : 1;
    const at::Tensor norm = at::full({}, 2.0);
    give_gradient(optimizer, a, gradients[i]);
    give_gradient(optimizer, b, 2 * gradients[i]);
    optimizer.step(factor, norm, /*clip=*/i == 1 ? 0.5 : 3);
    hand_a.update(scale * gradients[i], factor * 0.1, 0.01, stage);
    hand_b.update(scale * 2 * gradients[i], factor * 0.02, 0, stage);
    EXPECT_NEAR(a[2][1].item<double>(), hand_a.weight, 1e-5);
    EXPECT_NEAR(b[0].item<double>(), hand_b.weight, 1e-5);
  }
}

TEST(AdamW, NormIsGlobalAndSeesWhatIsNotFinite) {
  at::Tensor a = at::zeros({3}), b = at::zeros({2});
  AdamW optimizer({parameter("a", a, 1, 0), parameter("b", b, 0.5, 0)}, settings());
  EXPECT_EQ(optimizer.gradient_norm().item<float>(), 0);
  give_gradient(optimizer, a, 2);
  give_gradient(optimizer, b, 1);
  EXPECT_NEAR(optimizer.gradient_norm().item<float>(), std::sqrt(14.0), 1e-6);
  give_gradient(optimizer, b, std::numeric_limits<double>::infinity());
  EXPECT_FALSE(std::isfinite(optimizer.gradient_norm().item<float>()));
}

TEST(AdamW, SkipsWhatIsNotFiniteAndForgetsIt) {
  at::Tensor a = at::ones({3});
  AdamW optimizer({parameter("a", a, 0.1, 0.5)}, settings());
  const at::Tensor finite = at::ones({}), infinite = finite / 0;
  give_gradient(optimizer, a, std::numeric_limits<double>::infinity());
  optimizer.step(1, optimizer.gradient_norm(), /*clip=*/1, /*loss=*/finite);
  EXPECT_EQ(optimizer.gradient_norm().item<float>(), 0);
  give_gradient(optimizer, a, 1);
  optimizer.step(1, optimizer.gradient_norm(), /*clip=*/1, /*loss=*/infinite);
  EXPECT_TRUE(at::equal(a, at::ones({3})));
  EXPECT_EQ(optimizer.steps(), 0);
  EXPECT_EQ(optimizer.skipped().total, 2);
  EXPECT_EQ(optimizer.skipped().in_row, 2);
  give_gradient(optimizer, a, 1);
  optimizer.step(1, optimizer.gradient_norm(), /*clip=*/1, /*loss=*/finite);
  EXPECT_LT(a[0].item<float>(), 1);
  EXPECT_EQ(optimizer.steps(), 1);
  EXPECT_EQ(optimizer.skipped().total, 2);
  EXPECT_EQ(optimizer.skipped().in_row, 0);
}

TEST(AdamW, PartsOfAStepAddUp) {
  at::Tensor once = at::ones({2}), parts = at::ones({2});
  AdamW one({parameter("w", once, 0.1, 0)}, settings());
  AdamW two({parameter("w", parts, 0.1, 0)}, settings());
  give_gradient(one, once, 0.75);
  give_gradient(two, parts, 0.25);
  give_gradient(two, parts, 0.5);
  EXPECT_TRUE(at::equal(one.gradient_norm(), two.gradient_norm()));
  one.step(1, one.gradient_norm(), /*clip=*/0);
  two.step(1, two.gradient_norm(), /*clip=*/0);
  EXPECT_TRUE(at::equal(once, parts));
}

TEST(AdamW, SmallUpdatesAreNotLostInBf16) {
  at::Tensor master = at::ones({4});
  at::Tensor compute = master.to(at::kBFloat16).set_requires_grad(true);
  AdamW optimizer({{"w", master, compute, 1e-4, 0}}, settings());
  for (int i = 0; i < 100; ++i) {
    compute.mutable_grad() = at::ones_like(compute);
    optimizer.collect_gradients();
    optimizer.step(1, optimizer.gradient_norm(), /*clip=*/0);
  }
  // Each update is far below bf16's spacing at 1, their sum is not.
  EXPECT_NEAR(master[0].item<double>(), 0.99, 1e-4);
  EXPECT_TRUE(at::equal(compute, master.to(at::kBFloat16)));
}

TEST(AdamW, MomentsComeBackUnderTheirNames) {
  at::Tensor a = at::ones({2}), b = at::ones({3, 3});
  AdamW optimizer({parameter("a", a, 1, 0), parameter("b", b, 1, 0.1)}, settings());
  std::vector<std::string> names;
  optimizer.for_each_moment([&](const std::string& name, at::Tensor&) { names.push_back(name); });
  EXPECT_EQ(names, (std::vector<std::string>{"a.mean", "a.square", "b.mean", "b.square"}));
}

}  // namespace
}  // namespace mambify
