#include "eval/sensitivity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "convert/convert.h"
#include "convert/layer_plan.h"
#include "core/error.h"
#include "eval/agreement.h"
#include "random_model.h"
#include "testing.h"

namespace mambify {
namespace {

std::vector<Document> documents() {
  return {{{3, 14, 15, 9, 26, 5}, {false, false, true, true, true, true}},
          {{27, 18, 28, 18, 2, 8}, std::vector<bool>(6, true)}};
}

class Sensitivity : public ::testing::TestWithParam<ConvertOptions> {
 protected:
  // KL with exactly these layers converted, measured apart.
  double kl_of(std::vector<int64_t> converted_layers) {
    ConvertOptions options = GetParam();
    for (int64_t layer = 0; layer < 3; ++layer) {
      if (std::ranges::count(converted_layers, layer) == 0) {
        options.attention_layers.push_back(layer);
      }
    }
    return agreement(convert(teacher_, options), teacher_, documents(), {.greedy_prompts = 0}).kl;
  }
  Model teacher_ = testing::random_model(30, 1);
};

TEST_P(Sensitivity, IsTheAgreementOfConvertedModels) {
  const SensitivityResult result =
      sensitivity(teacher_, convert(teacher_, GetParam()), documents(), {});
  EXPECT_EQ(result.layers, 3);
  EXPECT_EQ(result.tokens, 4 + 5);
  ASSERT_EQ(result.alone.size(), 3u);
  for (const LayerKl& one : result.alone) {
    EXPECT_NEAR(one.kl, kl_of({one.layer}), 1e-6 + 1e-5 * one.kl) << one.layer;
  }
  ASSERT_EQ(result.order.size(), 3u);
  // Each step adds the layer with which the set's KL is least.
  std::vector<int64_t> set;
  for (const LayerKl& step : result.order) {
    for (int64_t other = 0; other < 3; ++other) {
      if (std::ranges::count(set, other) > 0) continue;
      std::vector<int64_t> trial = set;
      trial.push_back(other);
      EXPECT_LE(step.kl, kl_of(trial) * (1 + 1e-5)) << step.layer << " against " << other;
    }
    set.push_back(step.layer);
    EXPECT_NEAR(step.kl, kl_of(set), 1e-6 + 1e-5 * step.kl);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Forms, Sensitivity,
    ::testing::Values(ConvertOptions{}, ConvertOptions{.mixer = MixerKind::mamba1},
                      ConvertOptions{.start = MixerStart::neutral, .keep_rotary = true}));

TEST(SensitivityFile, IsWhatConvertReads) {
  const Model teacher = testing::random_model(30, 1);
  const SensitivityResult result = sensitivity(teacher, convert(teacher, {}), documents(), {});
  const testing::ScratchFolder scratch;
  std::ofstream(scratch / "sensitivity.json") << to_json(result).dump();
  EXPECT_EQ(sensitive_kept_layers({1, 3}, 3, scratch / "sensitivity.json"),
            (std::vector<int64_t>{result.order.back().layer}));
}

TEST(SensitivityOfAHybrid, TriesOnlyWhatIsStillAttention) {
  const Model hybrid = convert(testing::random_model(30, 1), {.attention_layers = {0, 2}});
  const SensitivityResult result =
      sensitivity(hybrid, convert(hybrid, {}), documents(), {.max_tokens = 6, .candidates = 1});
  EXPECT_EQ(result.tokens, 4);
  ASSERT_EQ(result.alone.size(), 2u);
  EXPECT_EQ(result.alone[0].layer, 0);
  EXPECT_EQ(result.alone[1].layer, 2);
  // with one candidate a step, the cheapest alone comes first
  const auto& alone = result.alone;
  EXPECT_EQ(result.order[0].layer, alone[0].kl <= alone[1].kl ? 0 : 2);
  EXPECT_THROW(sensitivity(hybrid, hybrid, documents(), {}), Error);
}

}  // namespace
}  // namespace mambify
