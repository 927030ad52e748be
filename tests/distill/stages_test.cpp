#include "distill/stages.h"

#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "distill/stepwise.h"

namespace mambify {
namespace {

Recipe recipe_with(const std::string& stages) {
  return parse_recipe(
      "[model]\nteacher = 't'\nkeep_attention = '1/2'\n[data]\nfiles = ['f']\n"
      "[run]\ndir = 'd'\n" +
          stages,
      "r.toml");
}

TEST(Phases, LimitsBecomeStepsOrSeconds) {
  const Recipe recipe = recipe_with(
      "[[stage]]\nkind = 'align'\ntokens = 4097\nbatch_tokens = 2048\n"
      "[[stage]]\nkind = 'distill'\nminutes = 2\n");
  const auto phases = plan_phases(recipe, 12);
  ASSERT_EQ(phases.size(), 2u);
  EXPECT_EQ(phases[0].steps, 3);
  EXPECT_EQ(phases[0].seconds, 0);
  EXPECT_EQ(phases[1].steps, 0);
  EXPECT_EQ(phases[1].seconds, 120);
  EXPECT_FALSE(phases[0].keep_attention.has_value());
}

TEST(Phases, RoundsShareTheStageAndKeepFewerLayers) {
  const Recipe recipe = recipe_with(
      "[[stage]]\nkind = 'stepwise'\nsteps = 8\nkeep_attention = ['1/2', '1/4', 'none']\n");
  const auto phases = plan_phases(recipe, 8);
  ASSERT_EQ(phases.size(), 3u);
  EXPECT_EQ(phases[0].steps + phases[1].steps + phases[2].steps, 8);
  EXPECT_EQ(*phases[0].keep_attention, (std::vector<int64_t>{1, 3, 5, 7}));
  EXPECT_EQ(*phases[1].keep_attention, (std::vector<int64_t>{3, 7}));
  EXPECT_TRUE(phases[2].keep_attention->empty());
}

TEST(Phases, RoundsMustBeNestedAndFit) {
  Phase whole;
  whole.steps = 4;
  EXPECT_THROW(stepwise_rounds(whole, {{1, 3}, {2}}), Error);
  whole.steps = 1;
  EXPECT_THROW(stepwise_rounds(whole, {{1, 3}, {1}}), Error);
}

TEST(Phases, LayersThatDoNotExistAreErrors) {
  const Recipe recipe =
      recipe_with("[[stage]]\nkind = 'stepwise'\nsteps = 8\nkeep_attention = ['3,40']\n");
  EXPECT_THROW(plan_phases(recipe, 12), Error);
  EXPECT_THROW(kept_layers("2/0", recipe.model, 12, "keep_attention"), Error);
}

TEST(Losses, AddUpByTheirShares) {
  const auto scalar = [](double value) { return at::scalar_tensor(value, at::kDouble); };
  const auto layers = [](std::vector<double> values) { return at::tensor(values, at::kDouble); };
  LossTensors sum;
  EXPECT_EQ(sum.read().total, 0);
  sum.add({scalar(1), scalar(2), {}, scalar(0.5), layers({1, 3})}, 0.25);
  sum.add({scalar(2), scalar(4), {}, scalar(1), layers({2, 5})}, 0.75);
  const Losses read = sum.read();
  EXPECT_EQ(read.total, 1.75);
  EXPECT_EQ(*read.kl, 3.5);
  EXPECT_FALSE(read.ce.has_value());
  EXPECT_EQ(*read.agreement, 0.875);
  EXPECT_EQ(read.layers, (std::vector<double>{1.75, 4.5}));
}

}  // namespace
}  // namespace mambify
