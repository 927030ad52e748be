#include "convert/convert.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "model/load.h"
#include "testing.h"

namespace mambify {
namespace {

using at::Tensor;

// A model of four attention layers with random weights: 6 heads, 2 key/value heads, width 8.
Model teacher() {
  at::manual_seed(7);
  Model model;
  ModelConfig& config = model.config;
  config.vocab_size = 50;
  config.d_model = 40;
  config.intermediate_size = 24;
  config.tie_embeddings = true;
  config.layers.assign(4, MixerKind::attention);
  config.attention.n_heads = 6;
  config.attention.n_kv_heads = 2;
  config.attention.head_dim = 8;
  model.embedding = model.lm_head = at::randn({50, 40});
  model.final_norm = at::randn({40});
  for (int i = 0; i < 4; ++i) {
    Attention attention;
    attention.q_proj = at::randn({48, 40});
    attention.k_proj = at::randn({16, 40});
    attention.v_proj = at::randn({16, 40});
    attention.o_proj = at::randn({40, 48});
    Block block;
    block.input_norm = at::randn({40});
    block.post_norm = at::randn({40});
    block.mixer = attention;
    block.mlp = {at::randn({24, 40}), at::randn({24, 40}), at::randn({40, 24})};
    model.blocks.push_back(block);
  }
  return model;
}

const Attention& attention_of(const Model& model, int64_t layer) {
  return std::get<Attention>(model.blocks[layer].mixer);
}

std::vector<std::pair<std::string, Tensor>> parameters(Model& model) {
  std::vector<std::pair<std::string, Tensor>> result;
  for_each_parameter(
      model, [&](const std::string& name, Tensor& tensor) { result.emplace_back(name, tensor); });
  return result;
}

bool equal(Model& a, Model& b) {
  const auto left = parameters(a), right = parameters(b);
  if (left.size() != right.size()) return false;
  for (size_t i = 0; i < left.size(); ++i) {
    if (left[i].first != right[i].first || !at::equal(left[i].second, right[i].second))
      return false;
  }
  return true;
}

bool within(const Tensor& tensor, double low, double high) {
  return tensor.min().item<double>() >= low && tensor.max().item<double>() <= high;
}

TEST(Convert, CopiesTheProjectionsIntoMamba2RowByRow) {
  const Model from = teacher();
  const Model to = convert(from, {.attention_layers = {1, 3}, .seed = 3});
  EXPECT_EQ(to.config.layers, (std::vector<MixerKind>{MixerKind::mamba2, MixerKind::attention,
                                                      MixerKind::mamba2, MixerKind::attention}));
  for (const int64_t layer : {0, 2}) {
    const Attention& attention = attention_of(from, layer);
    const auto& mixer = std::get<Mamba2>(to.blocks[layer].mixer);
    // rows [z: 48 | x: 16 | B: 16 | C: 48 | dt: 6]
    ASSERT_EQ(mixer.in_proj.sizes(), (at::IntArrayRef{134, 40}));
    EXPECT_TRUE(at::equal(mixer.in_proj.narrow(0, 48, 16), attention.v_proj));
    EXPECT_TRUE(at::equal(mixer.in_proj.narrow(0, 64, 16), attention.k_proj));
    EXPECT_TRUE(at::equal(mixer.in_proj.narrow(0, 80, 48), attention.q_proj));
    EXPECT_TRUE(at::equal(mixer.out_proj, attention.o_proj));
  }
}

TEST(Convert, CopiesTheProjectionsIntoMamba1) {
  const Model from = teacher();
  const Model to = convert(from, {.mixer = MixerKind::mamba1});
  for (int64_t layer = 0; layer < 4; ++layer) {
    const Attention& attention = attention_of(from, layer);
    const auto& mixer = std::get<Mamba1>(to.blocks[layer].mixer);
    EXPECT_TRUE(at::equal(mixer.in_proj_x, attention.v_proj));
    EXPECT_TRUE(at::equal(mixer.B_proj, attention.k_proj));
    EXPECT_TRUE(at::equal(mixer.C_proj, attention.q_proj));
    EXPECT_TRUE(at::equal(mixer.out_proj, attention.o_proj));
  }
}

TEST(Convert, LeavesEverythingElseAsItIsAndSharesNoMemory) {
  Model from = teacher();
  Model to = convert(from, {.attention_layers = {1}});
  EXPECT_TRUE(at::equal(to.embedding, from.embedding));
  EXPECT_TRUE(to.lm_head.is_same(to.embedding));
  EXPECT_TRUE(at::equal(attention_of(to, 1).q_proj, attention_of(from, 1).q_proj));
  for (int64_t layer = 0; layer < 4; ++layer) {
    EXPECT_TRUE(at::equal(to.blocks[layer].input_norm, from.blocks[layer].input_norm));
    EXPECT_TRUE(at::equal(to.blocks[layer].post_norm, from.blocks[layer].post_norm));
    EXPECT_TRUE(at::equal(to.blocks[layer].mlp.down_proj, from.blocks[layer].mlp.down_proj));
  }
  Model untouched = clone(from);
  for (auto& [name, tensor] : parameters(to)) tensor.fill_(99);
  EXPECT_TRUE(equal(from, untouched));
}

TEST(Convert, StartsMamba2AsPublished) {
  const Model to = convert(teacher(), {.seed = 1});
  const Mamba2Config& config = to.config.mamba2;
  EXPECT_TRUE(config.conv_activation && config.gate && config.norm && !config.rotary);
  EXPECT_EQ(config.norm_group_size, 8);
  const auto& mixer = std::get<Mamba2>(to.blocks[2].mixer);
  const Tensor dt = at::log1p(mixer.dt_bias.exp());
  EXPECT_TRUE(within(dt, 0.999e-3, 0.1001));
  EXPECT_TRUE(within(mixer.A_log.exp(), 1, 16.001));
  EXPECT_TRUE(at::equal(mixer.D, at::ones({6})));
  EXPECT_TRUE(at::equal(mixer.norm, at::ones({48})));
  const double bound = 1 / std::sqrt(40.0);
  for (const Tensor& rows : {mixer.in_proj.narrow(0, 0, 48), mixer.in_proj.narrow(0, 128, 6)}) {
    EXPECT_TRUE(within(rows, -bound, bound));
    EXPECT_NEAR(rows.mean().item<double>(), 0, 0.03);
    EXPECT_NEAR(rows.std().item<double>(), bound / std::sqrt(3.0), 0.01);
  }
  EXPECT_TRUE(within(mixer.conv_weight, -0.5, 0.5));
  EXPECT_TRUE(within(mixer.conv_bias, -0.5, 0.5));
  EXPECT_GT(mixer.conv_weight.abs().max().item<double>(), 0.45);
}

TEST(Convert, StartsMamba1AsPublished) {
  const Model to = convert(teacher(), {.mixer = MixerKind::mamba1});
  const Mamba1Config& config = to.config.mamba1;
  EXPECT_EQ(config.d_state, 8);
  EXPECT_EQ(config.dt_rank, 3);  // ceil(40 / 16)
  EXPECT_EQ(config.dt_bias_scale, 2);
  const auto& mixer = std::get<Mamba1>(to.blocks[0].mixer);
  EXPECT_TRUE(at::allclose(mixer.A_log[17].exp(), at::arange(1, 9, at::kFloat)));
  EXPECT_TRUE(within(mixer.dt_proj, -1 / std::sqrt(3.0), 1 / std::sqrt(3.0)));
  EXPECT_GT(mixer.dt_proj.abs().max().item<double>(), 0.5);
  EXPECT_TRUE(within(at::log1p(mixer.dt_bias.exp()), 0.999e-3, 0.1001));
  EXPECT_EQ(mixer.dt_proj_down.sizes(), (at::IntArrayRef{3, 40}));
}

TEST(Convert, StartsNeutralNearLinearAttention) {
  const Model from = teacher();
  const Model to = convert(from, {.start = MixerStart::neutral});
  const Mamba2Config& config = to.config.mamba2;
  EXPECT_FALSE(config.conv_activation || config.gate || config.norm);
  const auto& mixer = std::get<Mamba2>(to.blocks[1].mixer);
  EXPECT_TRUE(
      at::allclose(mixer.in_proj.narrow(0, 80, 48) * std::sqrt(8.0), attention_of(from, 1).q_proj));
  EXPECT_TRUE(at::equal(mixer.conv_weight[5], at::tensor({0.f, 0.f, 0.f, 1.f})));
  EXPECT_EQ(mixer.D.abs().max().item<double>(), 0);

  // So its output is the decaying sum of s exp(-s (t - i)) (q_t . k_i / sqrt(P)) v_i.
  at::manual_seed(11);
  const int64_t tokens = 5;
  const Tensor u = at::randn({tokens, 40});
  const Context context = make_context(to.config, Segments::one(tokens), at::kCPU);
  const Tensor found = forward(to.config, to.blocks[1].mixer, u, context, nullptr);
  const Attention& a = attention_of(from, 1);
  const Tensor q = u.matmul(a.q_proj.t()).view({tokens, 6, 8});
  const Tensor k = u.matmul(a.k_proj.t()).view({tokens, 2, 8});
  const Tensor v = u.matmul(a.v_proj.t()).view({tokens, 2, 8});
  Tensor y = at::zeros({tokens, 6, 8});
  for (int64_t head = 0; head < 6; ++head) {
    const double s = std::log1p(std::exp(mixer.dt_bias[head].item<double>()));
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i <= t; ++i) {
        const double weight = s * std::exp(-s * static_cast<double>(t - i)) / std::sqrt(8.0) *
                              q[t][head].dot(k[i][head / 3]).item<double>();
        y[t][head] += weight * v[i][head / 3];
      }
    }
  }
  const Tensor expected = y.view({tokens, 48}).matmul(a.o_proj.t());
  EXPECT_TRUE(at::allclose(found, expected, 1e-4, 1e-4));
}

TEST(Convert, DrawsProjectionsAfreshForTheAblation) {
  const Model from = teacher();
  const Model to = convert(from, {.init = MixerInit::random});
  const auto& mixer = std::get<Mamba2>(to.blocks[0].mixer);
  EXPECT_TRUE(within(mixer.in_proj, -1 / std::sqrt(40.0), 1 / std::sqrt(40.0)));
  EXPECT_TRUE(within(mixer.out_proj, -1 / std::sqrt(48.0), 1 / std::sqrt(48.0)));
  EXPECT_FALSE(at::equal(mixer.in_proj.narrow(0, 48, 16), mixer.in_proj.narrow(0, 64, 16)));
}

TEST(Convert, DependsOnTheSeedAndTheLayerOnly) {
  const Model from = teacher();
  Model first = convert(from, {.seed = 5});
  at::rand({100});  // LibTorch's own generator moves on
  Model second = convert(from, {.seed = 5});
  Model other = convert(from, {.seed = 6});
  EXPECT_TRUE(equal(first, second));
  EXPECT_FALSE(equal(first, other));
  EXPECT_FALSE(at::equal(std::get<Mamba2>(first.blocks[0].mixer).conv_weight,
                         std::get<Mamba2>(first.blocks[1].mixer).conv_weight));
}

TEST(Convert, InRoundsEqualsAtOnce) {
  const Model from = teacher();
  Model rounds = convert(convert(from, {.attention_layers = {1, 3}}), {.attention_layers = {3}});
  Model at_once = convert(from, {.attention_layers = {3}});
  EXPECT_TRUE(equal(rounds, at_once));
}

TEST(Convert, KeepsTheTeachersDtype) {
  Model from = teacher();
  to(from, at::kCPU, at::kBFloat16);
  Model student = convert(from, {});
  const auto& mixer = std::get<Mamba2>(student.blocks[0].mixer);
  for (const Tensor& tensor : {mixer.in_proj, mixer.conv_weight, mixer.norm, mixer.out_proj}) {
    EXPECT_EQ(tensor.scalar_type(), at::kBFloat16);
  }
  for (const Tensor& tensor : {mixer.A_log, mixer.D, mixer.dt_bias}) {
    EXPECT_EQ(tensor.scalar_type(), at::kFloat);
  }
}

TEST(Convert, RefusesWhatCannotBe) {
  Model model = teacher();
  EXPECT_THROW(convert(model, {.attention_layers = {4}}), Error);
  EXPECT_THROW(convert(model, {.mixer = MixerKind::mamba1, .keep_rotary = true}), Error);
  EXPECT_THROW(convert(model, {.mixer = MixerKind::mamba1, .start = MixerStart::neutral}), Error);
  const Model hybrid = convert(model, {.attention_layers = {3}});
  EXPECT_THROW(convert(hybrid, {.attention_layers = {0}}), Error);  // is mamba2 already
  EXPECT_THROW(convert(hybrid, {.start = MixerStart::neutral}), Error);
  EXPECT_THROW(convert(convert(model, {}), {}), Error);  // no attention left
  model.config.attention.bias = true;
  EXPECT_THROW(convert(model, {}), Error);
}

TEST(BestStart, IsTheNeutralOneForMamba2UnlessThereAreOtherLayers) {
  const Model model = teacher();
  EXPECT_EQ(best_start(model.config, MixerKind::mamba2), MixerStart::neutral);
  EXPECT_TRUE(keeps_rotary_best(model.config, MixerKind::mamba2, MixerStart::neutral));
  EXPECT_FALSE(keeps_rotary_best(model.config, MixerKind::mamba2, MixerStart::published));
  EXPECT_EQ(best_start(model.config, MixerKind::mamba1), MixerStart::published);
  EXPECT_FALSE(keeps_rotary_best(model.config, MixerKind::mamba1, MixerStart::published));

  for (const MixerStart start : {MixerStart::published, MixerStart::neutral}) {
    for (const bool rotary : {false, true}) {
      const Model hybrid =
          convert(model, {.attention_layers = {3}, .start = start, .keep_rotary = rotary});
      EXPECT_EQ(best_start(hybrid.config, MixerKind::mamba2), start);
      EXPECT_EQ(keeps_rotary_best(hybrid.config, MixerKind::mamba2, start), rotary);
    }
  }
}

TEST(TakeLayers, LeavesTheOthersOut) {
  const Model whole = convert(teacher(), {.attention_layers = {0, 2}});
  const Model shallow = take_layers(whole, {1, 2});
  EXPECT_EQ(shallow.config.layers, (std::vector{MixerKind::mamba2, MixerKind::attention}));
  ASSERT_EQ(shallow.blocks.size(), 2u);
  EXPECT_TRUE(shallow.blocks[0].mlp.up_proj.is_same(whole.blocks[1].mlp.up_proj));
  EXPECT_TRUE(attention_of(shallow, 1).q_proj.is_same(attention_of(whole, 2).q_proj));
  EXPECT_TRUE(shallow.embedding.is_same(whole.embedding));
}

TEST(Convert, SurvivesSavingAndLoading) {
  const Model from = load_model(testing::fixtures() / "tiny-llama");
  const std::vector<ConvertOptions> cases = {
      {.attention_layers = {1}},
      {.attention_layers = {1}, .mixer = MixerKind::mamba1},
      {.attention_layers = {}, .start = MixerStart::neutral},
      {.attention_layers = {0}, .keep_rotary = true},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    Model student = convert(from, cases[i]);
    testing::ScratchFolder scratch;
    save_model(student, scratch.path());
    Model loaded = load_model(scratch.path());
    EXPECT_EQ(loaded.config.layers, student.config.layers);
    EXPECT_TRUE(equal(loaded, student));

    const at::InferenceMode inference;
    const Tensor ids = at::arange(2, 40);
    const Context context = make_context(student.config, Segments::one(38), at::kCPU);
    EXPECT_TRUE(
        at::equal(hidden_states(loaded, ids, context), hidden_states(student, ids, context)));
  }
}

}  // namespace
}  // namespace mambify
