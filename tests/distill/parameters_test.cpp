#include "distill/parameters.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "tiny_run.h"

namespace mambify {
namespace {

std::vector<std::string> names(const std::vector<TrainedParameter>& parameters) {
  std::vector<std::string> result;
  for (const TrainedParameter& parameter : parameters) result.push_back(parameter.name);
  return result;
}

TEST(Patterns, StarsMatchAnything) {
  EXPECT_TRUE(matches_pattern("blocks.*.mlp.*", "blocks.12.mlp.up_proj"));
  EXPECT_TRUE(matches_pattern("*", "anything"));
  EXPECT_TRUE(matches_pattern("*_proj", "blocks.0.mixer.in_proj"));
  EXPECT_FALSE(matches_pattern("embedding", "embedding2"));
  EXPECT_FALSE(matches_pattern("blocks.*.mlp", "blocks.1.mlp.up_proj"));
  EXPECT_FALSE(matches_pattern("", "x"));
}

TEST(SelectParameters, MixersAreThoseOfConvertedLayers) {
  Model student = testing::tiny_inputs({1}).student;
  StageSection stage;
  stage.weight_decay = 0.1;
  const auto trained = select_parameters(student, student, stage);
  for (const TrainedParameter& parameter : trained) {
    EXPECT_TRUE(parameter.name.starts_with("blocks.0.mixer.") ||
                parameter.name.starts_with("blocks.2.mixer."))
        << parameter.name;
    EXPECT_EQ(parameter.peak_rate, stage.learning_rate);
    const bool is_projection = parameter.name.ends_with("_proj");
    EXPECT_EQ(parameter.weight_decay, is_projection ? 0.1 : 0) << parameter.name;
  }
  int64_t with_gradient = 0;
  for_each_parameter(student, [&](const std::string&, at::Tensor& t) {
    with_gradient += t.requires_grad() ? 1 : 0;
  });
  EXPECT_EQ(with_gradient, std::ssize(trained));
}

TEST(SelectParameters, AllHasTwoRates) {
  Model student = testing::tiny_inputs({1}).student;
  StageSection stage;
  stage.train = TrainSet::all;
  const auto trained = select_parameters(student, student, stage);
  for (const TrainedParameter& parameter : trained) {
    const bool is_new = parameter.name.starts_with("blocks.0.mixer.") ||
                        parameter.name.starts_with("blocks.2.mixer.");
    EXPECT_EQ(parameter.peak_rate, is_new ? stage.learning_rate : stage.learning_rate_rest)
        << parameter.name;
  }
  EXPECT_EQ(std::ranges::count(names(trained), "embedding"), 1);
}

TEST(SelectParameters, NewMixersAreThoseOfTheGivenLayers) {
  Model student = testing::tiny_inputs({1}).student;
  StageSection stage;
  stage.train = TrainSet::newest;
  const std::vector<int64_t> newest = {2};
  const auto trained = names(select_parameters(student, student, stage, newest));
  EXPECT_FALSE(trained.empty());
  for (const std::string& name : trained) EXPECT_TRUE(name.starts_with("blocks.2.mixer.")) << name;
}

TEST(SelectParameters, FrozenOnesStay) {
  Model student = testing::tiny_inputs({1}).student;
  StageSection stage;
  stage.train = TrainSet::all;
  stage.freeze = {"embedding", "blocks.*.mlp.*"};
  for (const std::string& name : names(select_parameters(student, student, stage))) {
    EXPECT_NE(name, "embedding");
    EXPECT_EQ(name.find(".mlp."), std::string::npos) << name;
  }
  EXPECT_FALSE(student.embedding.requires_grad());
}

TEST(SelectParameters, NothingToTrainIsAnError) {
  Model student = testing::tiny_inputs({1}).student;
  StageSection stage;
  stage.freeze = {"*"};
  EXPECT_THROW(select_parameters(student, student, stage), Error);
  stage.freeze = {"no.such.parameter"};
  EXPECT_THROW(select_parameters(student, student, stage), Error);
}

}  // namespace
}  // namespace mambify
