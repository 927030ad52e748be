
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
  const at::Tensor groups = gated.view({y.size(0), -1, sizes.norm_group_size});
  const at::Tensor scale = at::rsqrt(groups.square().mean(-1, /*keepdim=*/true) + sizes.norm_eps);
  return (groups * scale).view_as(y) * mixer.norm;
}

}  // namespace

at::Tensor forward(const ModelConfig& config, const Mamba2& mixer, const at::Tensor& u,
                   const Context& context, MixerState* state) {
  const Mamba2Config& sizes = config.mamba2;
  const int64_t tokens = u.size(0);
  at::Tensor window, ssm_state;
  if (state != nullptr) {
    window = select_rows(state->window, context.rows);
    ssm_state = select_rows(state->state, context.rows);
  }

  const auto projected =
      project(context.packed, u, mixer.in_proj)
          .split_with_sizes({sizes.d_inner(), sizes.conv_channels(), sizes.n_heads},
                            /*dim=*/1);
  const at::Tensor &z = projected[0], &dt = projected[2];
  const auto convolved =
      causal_conv1d(projected[1], mixer.conv_weight, mixer.conv_bias, context.segments,
                    sizes.conv_activation, state != nullptr ? &window : nullptr)
          .split_with_sizes({sizes.d_x(), sizes.d_b(), sizes.d_c()}, /*dim=*/1);
  at::Tensor B = convolved[1].view({tokens, sizes.b_groups, sizes.d_state});
  at::Tensor C = convolved[2].view({tokens, sizes.c_groups, sizes.d_state});
  if (sizes.rotary) {
    B = rotary(B, context.cos, context.sin);
    C = rotary(C, context.cos, context.sin);
  }
  const SsdInputs inputs{.x = convolved[0].view({tokens, sizes.x_groups, sizes.head_dim}),
                         .dt = dt,
                         .dt_bias = mixer.dt_bias,
                         .A = -mixer.A_log.exp(),
                         .B = B,
                         .C = C,
                         .D = mixer.D,
                         .dt_min = sizes.dt_min,
                         .dt_max = sizes.dt_max};
  const at::Tensor y = ssd(inputs, context.segments, state != nullptr ? &ssm_state : nullptr)
                           .view({tokens, sizes.d_inner()});
  if (state != nullptr) {
    store_rows(state->window, context.rows, window);
    store_rows(state->state, context.rows, ssm_state);
  }
  return project(context.packed, gate_and_norm(sizes, mixer, y, z), mixer.out_proj);
}

}  // namespace mambify
