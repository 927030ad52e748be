
#include <ATen/ops/ones.h>

#include "model/mixers.h"
#include "ops/causal_conv1d.h"
#include "ops/rms_norm.h"
#include "ops/rotary.h"
#include "ops/ssd.h"
#include "ops/swiglu.h"

namespace mambify {
namespace {

// Norm over groups of norm_group_size channels of y * silu(z), or what the config leaves of it.
at::Tensor gate_and_norm(const Mamba2Config& sizes, const Mamba2& mixer, const at::Tensor& y,
                         const at::Tensor& z) {
  if (sizes.norm && sizes.gate) {
    return gated_rms_norm(y, z, mixer.norm, sizes.norm_group_size, sizes.norm_eps);
  }
  const at::Tensor gated = sizes.gate ? swiglu(z, y) : y;
  if (!sizes.norm) return gated;
  const at::Tensor groups = gated.reshape({-1, sizes.norm_group_size});
  const at::Tensor ones = at::ones({sizes.norm_group_size}, groups.options());
  return rms_norm(groups, ones, sizes.norm_eps).view_as(y) * mixer.norm;
}

}  // namespace

at::Tensor forward(const ModelConfig& config, const Mamba2& mixer, const at::Tensor& u,
                   const Context& context, MixerState* state) {
  const Mamba2Config& sizes = config.mamba2;
  const std::vector<at::Tensor> projected =
      project_parts(context.packed, u, mixer.in_proj, {sizes.d_inner(), sizes.recurrent_inputs()});
  at::Tensor inputs = projected[1];
  at::Tensor window, ssm_state;
  if (state != nullptr) {
    inputs = context.replay.with_pending(state->pending, inputs);
    context.replay.keep_pending(state->pending, inputs);
    window = select_rows(state->window, context.rows);
    ssm_state = select_rows(state->state, context.rows);
  }

  const Segments& segments = context.replay.segments();
  const int64_t tokens = segments.tokens();
  const auto parts = inputs.split_with_sizes({sizes.conv_channels(), sizes.n_heads}, /*dim=*/1);
  const auto convolved = causal_conv1d(parts[0], mixer.conv_weight, mixer.conv_bias, segments,
                                       sizes.conv_activation, state != nullptr ? &window : nullptr)
                             .split_with_sizes({sizes.d_x(), sizes.d_b(), sizes.d_c()}, /*dim=*/1);
  at::Tensor B = convolved[1].view({tokens, sizes.b_groups, sizes.d_state});
  at::Tensor C = convolved[2].view({tokens, sizes.c_groups, sizes.d_state});
  if (sizes.rotary) {
    B = rotary(B, context.replay_cos, context.replay_sin);
    C = rotary(C, context.replay_cos, context.replay_sin);
  }
  const SsdInputs scan{.x = convolved[0].view({tokens, sizes.x_groups, sizes.head_dim}),
                       .dt = parts[1],
                       .dt_bias = mixer.dt_bias,
                       .A = -mixer.A_log.exp(),
                       .B = B,
                       .C = C,
                       .D = mixer.D,
                       .dt_min = sizes.dt_min,
                       .dt_max = sizes.dt_max};
  const at::Tensor y =
      ssd(scan, segments, state != nullptr ? &ssm_state : nullptr).view({tokens, sizes.d_inner()});
  if (state != nullptr) {
    store_rows(state->window, context.rows, window);
    store_rows(state->state, context.rows, ssm_state);
  }
  const at::Tensor gated =
      gate_and_norm(sizes, mixer, context.replay.of_new_tokens(y), /*z=*/projected[0]);
  return project(context.packed, gated, mixer.out_proj);
}

}  // namespace mambify
