// The mixers of the published hybrids: outputs and gradients as the published code computes them.
#include <gtest/gtest.h>

#include "model/fixtures.h"

namespace mambify {
namespace {

using namespace testing;

constexpr int64_t kModelWidth = 192, kInner = 192, kShared = 64, kHeads = 6, kHeadDim = 32;

struct Published {
  const char* file;
  MixerKind kind;
  int64_t d_state;
};

ModelConfig config_of(const Published& published) {
  ModelConfig config;
  config.d_model = kModelWidth;
  config.layers = {published.kind};
  config.mamba1 = {.d_inner = kInner,
                   .d_xb = kShared,
                   .d_state = published.d_state,
                   .dt_rank = kModelWidth / 16,
                   .b_groups = kShared / published.d_state,
                   .c_groups = kInner / published.d_state,
                   .dt_bias_scale = 2};
  config.mamba2 = {.n_heads = kHeads,
                   .head_dim = kHeadDim,
                   .d_state = published.d_state,
                   .x_groups = kShared / kHeadDim,
                   .b_groups = kShared / published.d_state,
                   .c_groups = kHeads,
                   .norm_group_size = kHeadDim};
  return config;
}

// The file's name of each tensor of a mixer.
std::vector<std::pair<std::string, at::Tensor*>> names_of(Mamba1& m) {
  return {{"in_proj_x.weight", &m.in_proj_x},
          {"in_proj_z.weight", &m.in_proj_z},
          {"conv1d.weight", &m.conv_weight},
          {"conv1d.bias", &m.conv_bias},
          {"B_proj.weight", &m.B_proj},
          {"C_proj.weight", &m.C_proj},
          {"dt_proj_down.weight", &m.dt_proj_down},
          {"dt_proj.weight", &m.dt_proj},
          {"dt_proj.bias", &m.dt_bias},
          {"A_log", &m.A_log},
          {"D", &m.D},
          {"out_proj.weight", &m.out_proj}};
}
std::vector<std::pair<std::string, at::Tensor*>> names_of(Mamba2& m) {
  return {{"in_proj.weight", &m.in_proj},
          {"conv1d.weight", &m.conv_weight},
          {"conv1d.bias", &m.conv_bias},
          {"dt_bias", &m.dt_bias},
          {"A_log", &m.A_log},
          {"D", &m.D},
          {"norm.weight", &m.norm},
          {"out_proj.weight", &m.out_proj}};
}

template <typename MixerType>
void check(const Published& published) {
  const TensorMap file = open_safetensors(fixtures() / published.file);
  const ModelConfig config = config_of(published);
  MixerType mixer;
  for (auto [name, tensor] : names_of(mixer)) {
    *tensor = tensor_of(file, "weight." + name);
    if (name == "conv1d.weight") *tensor = tensor->squeeze(1);
    tensor->requires_grad_();
  }
  const at::Tensor input = tensor_of(file, "input");
  const at::Tensor u = input.flatten(0, 1).requires_grad_();
  const Context context = make_context(config, segments_of(input.select(2, 0)), u.options());
  const at::Tensor y = forward(config, mixer, u, context, nullptr);
  const at::Tensor expected = tensor_of(file, "output").view_as(y);
  EXPECT_LT((y - expected).abs().max().item<float>(), 1e-4f);

  y.backward(tensor_of(file, "grad_output").view_as(y));
  const auto expect_gradient = [&](const std::string& name, const at::Tensor& ours) {
    const at::Tensor theirs = tensor_of(file, "grad." + name).view_as(ours);
    const double error = ((ours - theirs).norm() / theirs.norm()).item<double>();
    EXPECT_LT(error, 1e-3) << name;
    EXPECT_LT(((ours - theirs).abs().max() / theirs.abs().max()).item<double>(), 1e-3) << name;
  };
  expect_gradient("input", u.grad());
  for (auto [name, tensor] : names_of(mixer)) expect_gradient(name, tensor->grad());
}

TEST(PublishedMixers, Mamba2) {
  check<Mamba2>({"mil-mamba2-mixer.safetensors", MixerKind::mamba2, 32});
}

TEST(PublishedMixers, Mamba1WithStateAsWideAsAHead) {
  check<Mamba1>({"mil-mamba1-mixer.safetensors", MixerKind::mamba1, 32});
}

TEST(PublishedMixers, Mamba1WithTheStateOfThePublishedModels) {
  check<Mamba1>({"mil-mamba1-published-mixer.safetensors", MixerKind::mamba1, 16});
}

}  // namespace
}  // namespace mambify
