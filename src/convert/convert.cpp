#include "convert/convert.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "convert/initialise.h"
#include "core/error.h"

namespace mambify {
namespace {

using at::Tensor;

// The projections that attention gives, or their random stand-ins.
struct Projections {
  Tensor x, B, C, out;
};

Projections projections(const ModelConfig& config, const Attention& attention,
                        const LayerInitialiser& draw, MixerInit init) {
  if (init == MixerInit::attention) {
    return {attention.v_proj.clone(), attention.k_proj.clone(), attention.q_proj.clone(),
            attention.o_proj.clone()};
  }
  const AttentionConfig& from = config.attention;
  const int64_t d_inner = from.n_heads * from.head_dim, d_xb = from.n_kv_heads * from.head_dim;
  return {draw.linear(DrawnParameter::x, d_xb, config.d_model),
          draw.linear(DrawnParameter::B, d_xb, config.d_model),
          draw.linear(DrawnParameter::C, d_inner, config.d_model),
          draw.linear(DrawnParameter::out, config.d_model, d_inner)};
}

Mamba2 make_mamba2(const ModelConfig& config, const Attention& attention,
                   const LayerInitialiser& draw, const ConvertOptions& options) {
  const Mamba2Config& to = config.mamba2;
  const at::TensorOptions like = attention.q_proj.options();
  const bool neutral = options.start == MixerStart::neutral;
  Projections from = projections(config, attention, draw, options.init);
  if (neutral && options.init == MixerInit::attention) {
    from.C = from.C / std::sqrt(static_cast<double>(to.head_dim));
  }
  // A step size that depends on no input, or one that does from the start.
  const Tensor dt = neutral ? at::zeros({to.n_heads, config.d_model})
                            : draw.linear(DrawnParameter::dt, to.n_heads, config.d_model);
  const Tensor z = draw.linear(DrawnParameter::z, to.d_inner(), config.d_model);

  Mamba2 mixer;
  mixer.in_proj =
      at::cat({z.to(like), from.x.to(like), from.B.to(like), from.C.to(like), dt.to(like)});
  if (neutral) {
    mixer.conv_weight = at::zeros({to.conv_channels(), to.d_conv});
    mixer.conv_weight.select(1, to.d_conv - 1).fill_(1);
    mixer.conv_bias = at::zeros({to.conv_channels()});
    // A = -1 with the published step sizes makes the state a mean over about the last 1 / dt
    // tokens, the nearest that a recurrence without normaliser comes to attention's average.
    mixer.A_log = at::zeros({to.n_heads});
    mixer.D = at::zeros({to.n_heads});
  } else {
    const double bound = 1 / std::sqrt(static_cast<double>(to.d_conv));
    mixer.conv_weight = draw.linear(DrawnParameter::conv_weight, to.conv_channels(), to.d_conv);
    mixer.conv_bias = draw.uniform(DrawnParameter::conv_bias, {to.conv_channels()}, -bound, bound);
    mixer.A_log = draw.uniform(DrawnParameter::A, {to.n_heads}, 1, 16).log();
    mixer.D = at::ones({to.n_heads});
  }
  mixer.dt_bias = draw.step_size_bias(to.n_heads);
  mixer.norm = at::ones({to.d_inner()});
  mixer.out_proj = from.out;
  for (Tensor* tensor : {&mixer.conv_weight, &mixer.conv_bias, &mixer.norm, &mixer.out_proj}) {
    *tensor = tensor->to(like);
  }
  for (Tensor* tensor : {&mixer.dt_bias, &mixer.A_log, &mixer.D})
    *tensor = tensor->to(like.device());
  return mixer;
}

Mamba1 make_mamba1(const ModelConfig& config, const Attention& attention,
                   const LayerInitialiser& draw, const ConvertOptions& options) {
  const Mamba1Config& to = config.mamba1;
  const at::TensorOptions like = attention.q_proj.options();
  const double conv_bound = 1 / std::sqrt(static_cast<double>(to.d_conv));
  const double dt_bound = 1 / std::sqrt(static_cast<double>(to.dt_rank));
  const Projections from = projections(config, attention, draw, options.init);

  Mamba1 mixer;
  mixer.in_proj_x = from.x;
  mixer.B_proj = from.B;
  mixer.C_proj = from.C;
  mixer.out_proj = from.out;
  mixer.in_proj_z = draw.linear(DrawnParameter::z, to.d_inner, config.d_model);
  mixer.conv_weight = draw.linear(DrawnParameter::conv_weight, to.d_inner, to.d_conv);
  mixer.conv_bias = draw.uniform(DrawnParameter::conv_bias, {to.d_inner}, -conv_bound, conv_bound);
  mixer.dt_proj_down = draw.linear(DrawnParameter::dt_down, to.dt_rank, config.d_model);
  mixer.dt_proj = draw.uniform(DrawnParameter::dt, {to.d_inner, to.dt_rank}, -dt_bound, dt_bound);
  mixer.dt_bias = draw.step_size_bias(to.d_inner);
  mixer.A_log = at::arange(1, to.d_state + 1, at::kFloat).log().repeat({to.d_inner, 1});
  mixer.D = at::ones({to.d_inner});
  for (Tensor* tensor :
       {&mixer.in_proj_x, &mixer.B_proj, &mixer.C_proj, &mixer.out_proj, &mixer.in_proj_z,
        &mixer.conv_weight, &mixer.conv_bias, &mixer.dt_proj_down, &mixer.dt_proj}) {
    *tensor = tensor->to(like);
  }
  for (Tensor* tensor : {&mixer.dt_bias, &mixer.A_log, &mixer.D})
    *tensor = tensor->to(like.device());
  return mixer;
}

Mamba2Config mamba2_config(const AttentionConfig& attention, const ConvertOptions& options) {
  Mamba2Config to;
  to.n_heads = attention.n_heads;
  to.head_dim = to.d_state = to.norm_group_size = attention.head_dim;
  to.x_groups = to.b_groups = attention.n_kv_heads;
  to.c_groups = attention.n_heads;
  const bool published = options.start == MixerStart::published;
  to.conv_activation = to.gate = to.norm = published;
  to.rotary = options.keep_rotary;
  return to;
}

Mamba1Config mamba1_config(const AttentionConfig& attention, int64_t d_model) {
  Mamba1Config to;
  to.d_inner = attention.n_heads * attention.head_dim;
  to.d_xb = attention.n_kv_heads * attention.head_dim;
  to.d_state = attention.head_dim;
  to.dt_rank = (d_model + 15) / 16;
  to.b_groups = attention.n_kv_heads;
  to.c_groups = attention.n_heads;
  to.dt_bias_scale = 2;
  return to;
}

bool same_form(const Mamba2Config& a, const Mamba2Config& b) {
  return a.n_heads == b.n_heads && a.head_dim == b.head_dim && a.d_state == b.d_state &&
         a.x_groups == b.x_groups && a.b_groups == b.b_groups && a.c_groups == b.c_groups &&
         a.d_conv == b.d_conv && a.norm_group_size == b.norm_group_size &&
         a.conv_activation == b.conv_activation && a.gate == b.gate && a.norm == b.norm &&
         a.rotary == b.rotary;
}

bool same_form(const Mamba1Config& a, const Mamba1Config& b) {
  return a.d_inner == b.d_inner && a.d_xb == b.d_xb && a.d_state == b.d_state &&
         a.dt_rank == b.dt_rank && a.d_conv == b.d_conv && a.b_groups == b.b_groups &&
         a.c_groups == b.c_groups && a.selects_from_x == b.selects_from_x &&
         a.dt_bias_scale == b.dt_bias_scale;
}

void check_options(const ModelConfig& teacher, const ConvertOptions& options) {
  if (options.mixer == MixerKind::attention) throw Error("attention is no mixer to convert to");
  if (options.mixer == MixerKind::mamba1 && options.start == MixerStart::neutral) {
    throw Error("the neutral start exists for mamba2 only, found mixer mamba1");
  }
  if (options.mixer == MixerKind::mamba1 && options.keep_rotary) {
    throw Error("rotary embedding can be kept with mamba2 only, found mixer mamba1");
  }
  if (teacher.count(MixerKind::attention) == 0) {
    throw Error("the teacher has no attention layer to convert");
  }
  const MixerKind other =
      options.mixer == MixerKind::mamba2 ? MixerKind::mamba1 : MixerKind::mamba2;
  if (teacher.count(other) > 0) {
    throw Error("the teacher has {} layers already, expected to convert the rest to the same mixer",
                mixer_name(other));
  }
  if (teacher.attention.bias) {
    throw Error(
        "the teacher's attention has biases, for which the Mamba layouts have no place; a teacher "
        "without them (attention_bias false) is expected");
  }
}

}  // namespace

MixerStart best_start(const ModelConfig& model, MixerKind mixer) {
  if (mixer != MixerKind::mamba2) return MixerStart::published;
  const bool has_published = model.count(mixer) > 0 && model.mamba2.gate;
  return has_published ? MixerStart::published : MixerStart::neutral;
}

bool keeps_rotary_best(const ModelConfig& model, MixerKind mixer, MixerStart start) {
  if (mixer != MixerKind::mamba2) return false;
  return model.count(mixer) > 0 ? model.mamba2.rotary : start == MixerStart::neutral;
}

ModelConfig converted_config(const ModelConfig& teacher, const ConvertOptions& options) {
  check_options(teacher, options);
  ModelConfig config = teacher;
  std::vector<bool> kept(teacher.layers.size(), false);
  for (const int64_t layer : options.attention_layers) {
    if (layer < 0 || layer >= teacher.n_layer()) {
      throw Error("layer {} is to keep attention, the model has layers 0 to {}", layer,
                  teacher.n_layer() - 1);
    }
    if (teacher.layers[layer] != MixerKind::attention) {
      throw Error("layer {} is to keep attention, but it is {} already", layer,
                  mixer_name(teacher.layers[layer]));
    }
    kept[layer] = true;
  }
  const bool has_kind = teacher.count(options.mixer) > 0;
  for (int64_t layer = 0; layer < config.n_layer(); ++layer) {
    if (config.layers[layer] == MixerKind::attention && !kept[layer]) {
      config.layers[layer] = options.mixer;
    }
  }
  // Layers of one kind share one config, so what is already there must be of the same form.
  bool fits = true;
  if (options.mixer == MixerKind::mamba2) {
    config.mamba2 = mamba2_config(teacher.attention, options);
    fits = !has_kind || same_form(config.mamba2, teacher.mamba2);
  } else {
    config.mamba1 = mamba1_config(teacher.attention, teacher.d_model);
    fits = !has_kind || same_form(config.mamba1, teacher.mamba1);
  }
  if (!fits) {
    throw Error(
        "the model has {} layers of another form (sizes, start or rotary embedding) than those "
        "asked for; convert the rest with the options of the first conversion",
        mixer_name(options.mixer));
  }
  return config;
}

Mixer convert_layer(const ModelConfig& config, const Attention& attention, int64_t layer,
                    const ConvertOptions& options) {
  const at::NoGradGuard no_grad;
  const LayerInitialiser draw(options.seed, layer);
  if (options.mixer == MixerKind::mamba1) return make_mamba1(config, attention, draw, options);
  return make_mamba2(config, attention, draw, options);
}

void convert_in_place(Model& model, const ConvertOptions& options) {
  ModelConfig config = converted_config(model.config, options);
  for (int64_t layer = 0; layer < config.n_layer(); ++layer) {
    if (config.layers[layer] == model.config.layers[layer]) continue;
    Mixer& mixer = model.blocks[layer].mixer;
    mixer = convert_layer(config, std::get<Attention>(mixer), layer, options);
  }
  model.config = std::move(config);
}

Model convert(const Model& teacher, const ConvertOptions& options) {
  Model student = clone(teacher);
  convert_in_place(student, options);
  return student;
}

Model take_layers(const Model& model, const std::vector<int64_t>& layers) {
  Model shallow = model;
  shallow.blocks.clear();
  shallow.config.layers.clear();
  for (const int64_t layer : layers) {
    shallow.blocks.push_back(model.blocks.at(layer));
    shallow.config.layers.push_back(model.config.layers.at(layer));
  }
  return shallow;
}

MixerInit parse_mixer_init(const std::string& name) {
  if (name == "attention") return MixerInit::attention;
  if (name == "random") return MixerInit::random;
  throw UsageError("init '{}' is unknown, expected attention or random", name);
}

MixerStart parse_mixer_start(const std::string& name) {
  if (name == "published") return MixerStart::published;
  if (name == "neutral") return MixerStart::neutral;
  throw UsageError("start '{}' is unknown, expected published or neutral", name);
}

MixerKind parse_mixer_kind(const std::string& name) {
  for (const MixerKind kind : {MixerKind::mamba1, MixerKind::mamba2}) {
    if (name == mixer_name(kind)) return kind;
  }
  throw UsageError("mixer '{}' is unknown, expected mamba2 or mamba1", name);
}

}  // namespace mambify
