#include "model/model.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <fmt/format.h>

#include "ops/rms_norm.h"
#include "ops/swiglu.h"

namespace mambify {
namespace {

using Visit = std::function<void(const std::string&, at::Tensor&)>;

void visit_mixer(Attention& mixer, const std::string& prefix, const Visit& visit) {
  visit(prefix + "q_proj", mixer.q_proj);
  visit(prefix + "k_proj", mixer.k_proj);
  visit(prefix + "v_proj", mixer.v_proj);
  visit(prefix + "o_proj", mixer.o_proj);
  if (!mixer.q_bias.defined()) return;
  visit(prefix + "q_bias", mixer.q_bias);
  visit(prefix + "k_bias", mixer.k_bias);
  visit(prefix + "v_bias", mixer.v_bias);
  visit(prefix + "o_bias", mixer.o_bias);
}

void visit_mixer(Mamba1& mixer, const std::string& prefix, const Visit& visit) {
  visit(prefix + "in_proj_x", mixer.in_proj_x);
  visit(prefix + "in_proj_z", mixer.in_proj_z);
  visit(prefix + "conv_weight", mixer.conv_weight);
  visit(prefix + "conv_bias", mixer.conv_bias);
  visit(prefix + "B_proj", mixer.B_proj);
  visit(prefix + "C_proj", mixer.C_proj);
  visit(prefix + "dt_proj_down", mixer.dt_proj_down);
  visit(prefix + "dt_proj", mixer.dt_proj);
  visit(prefix + "dt_bias", mixer.dt_bias);
  visit(prefix + "A_log", mixer.A_log);
  visit(prefix + "D", mixer.D);
  visit(prefix + "out_proj", mixer.out_proj);
}

void visit_mixer(Mamba2& mixer, const std::string& prefix, const Visit& visit) {
  visit(prefix + "in_proj", mixer.in_proj);
  visit(prefix + "conv_weight", mixer.conv_weight);
  visit(prefix + "conv_bias", mixer.conv_bias);
  visit(prefix + "dt_bias", mixer.dt_bias);
  visit(prefix + "A_log", mixer.A_log);
  visit(prefix + "D", mixer.D);
  visit(prefix + "norm", mixer.norm);
  visit(prefix + "out_proj", mixer.out_proj);
}

// The recurrence is sensitive to these few values; they stay fp32 under bf16 weights.
bool stays_fp32(const std::string& name) {
  return name.ends_with(".A_log") || name.ends_with(".D") || name.ends_with(".dt_bias");
}

bool is_tied(const Model& model) { return model.lm_head.is_same(model.embedding); }

}  // namespace

MixerKind kind_of(const Mixer& mixer) {
  constexpr MixerKind kKinds[] = {MixerKind::attention, MixerKind::mamba1, MixerKind::mamba2};
  return kKinds[mixer.index()];
}

at::Tensor forward(const ModelConfig& config, const Mixer& mixer, const at::Tensor& u,
                   const Context& context, MixerState* state) {
  return std::visit([&](const auto& kind) { return forward(config, kind, u, context, state); },
                    mixer);
}

void for_each_parameter(Model& model, const Visit& visit) {
  visit("embedding", model.embedding);
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    Block& block = model.blocks[i];
    const std::string prefix = fmt::format("blocks.{}.", i);
    visit(prefix + "input_norm", block.input_norm);
    std::visit([&](auto& mixer) { visit_mixer(mixer, prefix + "mixer.", visit); }, block.mixer);
    if (!block.post_norm.defined()) continue;
    visit(prefix + "post_norm", block.post_norm);
    visit(prefix + "mlp.gate_proj", block.mlp.gate_proj);
    visit(prefix + "mlp.up_proj", block.mlp.up_proj);
    visit(prefix + "mlp.down_proj", block.mlp.down_proj);
  }
  visit("final_norm", model.final_norm);
  if (!is_tied(model)) visit("lm_head", model.lm_head);
}

int64_t parameter_count(const Model& model) {
  Model view = model;  // tensors are handles: nothing is copied
  int64_t total = 0;
  for_each_parameter(view, [&](const std::string&, at::Tensor& t) { total += t.numel(); });
  return total;
}

Model clone(const Model& model) {
  Model copy = model;
  const bool tied = is_tied(model);
  for_each_parameter(copy, [](const std::string&, at::Tensor& t) { t = t.detach().clone(); });
  if (tied) copy.lm_head = copy.embedding;
  return copy;
}

void to(Model& model, at::Device device, at::ScalarType dtype) {
  const bool tied = is_tied(model);
  for_each_parameter(model, [&](const std::string& name, at::Tensor& t) {
    t = t.to(device, stays_fp32(name) ? at::kFloat : dtype);
  });
  if (tied) model.lm_head = model.embedding;
}

at::Tensor embed(const Model& model, const at::Tensor& ids) {
  return at::embedding(model.embedding, ids);
}

namespace {

// What an MLP's last matrix is multiplied by.
at::Tensor activated(const Mlp& mlp, const at::Tensor& u, const PackedWeights* packed) {
  const std::vector<at::Tensor> weights = input_projections(mlp);
  // There, the gradient of two parts of a product would be brought together by a copy.
  if (u.is_cuda()) return swiglu(project_as_one(u, weights));
  const std::vector<at::Tensor> in = project_group(packed, u, weights);
  return swiglu(/*gate=*/in[0], /*up=*/in[1]);
}

}  // namespace

at::Tensor mlp_forward(const Model& model, int64_t layer, const at::Tensor& h,
                       const PackedWeights* packed) {
  const Block& block = model.blocks[layer];
  if (!block.post_norm.defined()) return h;
  const at::Tensor u = rms_norm(h, block.post_norm, model.config.norm_eps);
  const Mlp& mlp = block.mlp;
  return h + project(packed, activated(mlp, u, packed), mlp.down_proj);
}

at::Tensor block_forward(const Model& model, int64_t layer, const at::Tensor& x,
                         const Context& context, MixerState* state) {
  const Block& block = model.blocks[layer];
  const at::Tensor u = rms_norm(x, block.input_norm, model.config.norm_eps);
  return mlp_forward(model, layer, x + forward(model.config, block.mixer, u, context, state),
                     context.packed);
}

at::Tensor hidden_states(const Model& model, const at::Tensor& ids, const Context& context,
                         ModelState* state) {
  at::Tensor x = embed(model, ids);
  for (int64_t layer = 0; layer < model.config.n_layer(); ++layer) {
    x = block_forward(model, layer, x, context, state != nullptr ? &state->layers[layer] : nullptr);
  }
  if (state != nullptr) {
    advance(*state, context);
  }
  return rms_norm(x, model.final_norm, model.config.norm_eps);
}

at::Tensor logits(const Model& model, const at::Tensor& hidden, const PackedWeights* packed) {
  return project(packed, hidden, model.lm_head);
}

}  // namespace mambify
