#include "distill/stages.h"

#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "distill/stepwise.h"
#include "testing.h"

namespace mambify {
namespace {

Recipe recipe_with(const std::string& stages) {
  return parse_recipe(
      "[model]\nteacher = 't'\nkeep_attention = '1/2'\n[data]\nfiles = ['f']\n"
      "[run]\ndir = 'd'\n" +
          stages,
      "r.toml");
}

std::vector<MixerKind> attention(int64_t layers) {
  return std::vector(layers, MixerKind::attention);
}

TEST(Phases, LimitsBecomeStepsOrSeconds) {
  const Recipe recipe = recipe_with(
      "[[stage]]\nkind = 'align'\ntokens = 4097\nbatch_tokens = 2048\n"
      "[[stage]]\nkind = 'distill'\nminutes = 2\n");
  const auto phases = plan_phases(recipe, attention(12));
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
  const auto phases = plan_phases(recipe, attention(8));
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

TEST(Phases, KnowWhichLayersTheLastConversionMade) {
  const Recipe recipe = recipe_with(
      "[[stage]]\nkind = 'align'\nsteps = 1\nkeep_attention = ['1/2']\n"
      "[[stage]]\nkind = 'distill'\nsteps = 1\n"
      "[[stage]]\nkind = 'align'\nsteps = 1\nkeep_attention = ['1/4']\ntrain = 'new'\n"
      "[[stage]]\nkind = 'stepwise'\nsteps = 2\nkeep_attention = ['1/4', 'none']\n");
  const auto phases = plan_phases(recipe, attention(8));
  ASSERT_EQ(phases.size(), 5u);
  EXPECT_EQ(phases[0].newest, (std::vector<int64_t>{0, 2, 4, 6}));
  EXPECT_EQ(phases[1].newest, phases[0].newest);
  EXPECT_FALSE(phases[1].keep_attention.has_value());
  EXPECT_EQ(phases[2].newest, (std::vector<int64_t>{1, 5}));
  EXPECT_EQ(phases[3].newest, phases[2].newest);
  EXPECT_EQ(phases[4].newest, (std::vector<int64_t>{3, 7}));
  std::vector<MixerKind> converted = attention(8);
  converted[3] = MixerKind::mamba2;
  EXPECT_THROW(plan_phases(recipe, converted), Error);
}

TEST(Phases, TheRecipesOfTheProjectKeepLayersThatAreThere) {
  const fs::path recipes = testing::fixtures() / "../../recipes";
  const auto kept_in_phases = [&](const char* file, const std::vector<MixerKind>& layers) {
    const Recipe recipe = load_recipe(recipes / file);
    std::vector<std::vector<int64_t>> kept;
    for (const Phase& phase : plan_phases(recipe, layers)) {
      if (phase.keep_attention) kept.push_back(*phase.keep_attention);
    }
    return kept;
  };
  std::vector<MixerKind> half = attention(30);
  for (size_t layer = 0; layer < half.size(); layer += 2) half[layer] = MixerKind::mamba2;
  const auto progressive = kept_in_phases("smollm2-progressive.toml", half);
  ASSERT_EQ(progressive.size(), 3u);
  EXPECT_EQ(progressive[0].size(), 7u);
  EXPECT_EQ(progressive[1].size(), 3u);
  EXPECT_TRUE(progressive[2].empty());
  const auto published = kept_in_phases("llama-8b.toml", attention(32));
  ASSERT_EQ(published.size(), 2u);
  EXPECT_EQ(published[0].size(), 24u);
  EXPECT_EQ(published[1].size(), 16u);
}

TEST(Phases, LayersThatDoNotExistAreErrors) {
  const Recipe recipe =
      recipe_with("[[stage]]\nkind = 'stepwise'\nsteps = 8\nkeep_attention = ['3,40']\n");
  EXPECT_THROW(plan_phases(recipe, attention(12)), Error);
  EXPECT_THROW(kept_layers("2/0", recipe.model, 12, "keep_attention"), Error);
}

TEST(Losses, AddUpByTheirShares) {
  const auto scalar = [](double value) { return at::scalar_tensor(value, at::kDouble); };
  const auto layers = [](std::vector<double> values) { return at::tensor(values, at::kDouble); };
  LossTensors sum;
  EXPECT_EQ(sum.read().total, 0);
  const auto parts = [&](double kl, double agreement) {
    LossParts<at::Tensor> parts;
    parts.kl = scalar(kl);
    parts.agreement = scalar(agreement);
    return parts;
  };
  sum.add({scalar(1), parts(2, 0.5), layers({1, 3})}, 0.25);
  sum.add({scalar(2), parts(4, 1), layers({2, 5})}, 0.75);
  const Losses read = sum.read();
  EXPECT_EQ(read.total, 1.75);
  EXPECT_EQ(*read.parts.kl, 3.5);
  EXPECT_FALSE(read.parts.ce.has_value());
  EXPECT_EQ(*read.parts.agreement, 0.875);
  EXPECT_EQ(read.layers, (std::vector<double>{1.75, 4.5}));
}

}  // namespace
}  // namespace mambify
