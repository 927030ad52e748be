
#include "model/mixers.h"
#include "ops/causal_conv1d.h"
#include "ops/selective_scan.h"
#include "ops/swiglu.h"

namespace mambify {

at::Tensor forward(const ModelConfig& config, const Mamba1& mixer, const at::Tensor& u,
                   const Context& context, MixerState* state) {
  const Mamba1Config& sizes = config.mamba1;
  const int64_t tokens = u.size(0);
  const auto linear = [&](const at::Tensor& x, const at::Tensor& weight) {
    return project(context.packed, x, weight);
  };
  at::Tensor x = linear(u, mixer.in_proj_x);
  if (sizes.d_xb != sizes.d_inner) {
    const int64_t groups = sizes.d_xb / sizes.d_state;
    x = x.view({tokens, groups, 1, sizes.d_state})
            .expand({-1, -1, sizes.d_inner / sizes.d_xb, -1})
            .reshape({tokens, sizes.d_inner});
  }
  at::Tensor window, ssm_state;
  if (state != nullptr) {
    window = select_rows(state->window, context.rows);
    ssm_state = select_rows(state->state, context.rows);
  }
  x = causal_conv1d(x, mixer.conv_weight, mixer.conv_bias, context.segments, /*silu=*/true,
                    state != nullptr ? &window : nullptr);

  const at::Tensor& source = sizes.selects_from_x ? x : u;
  const SelectiveScanInputs inputs{
      .x = x,
      .dt = linear(linear(source, mixer.dt_proj_down), mixer.dt_proj),
      .dt_bias = sizes.dt_bias_scale == 1 ? mixer.dt_bias : mixer.dt_bias * sizes.dt_bias_scale,
      .A = -mixer.A_log.exp(),
      .B = linear(source, mixer.B_proj).view({tokens, sizes.b_groups, sizes.d_state}),
      .C = linear(source, mixer.C_proj).view({tokens, sizes.c_groups, sizes.d_state}),
      .D = mixer.D};
  const at::Tensor y =
      selective_scan(inputs, context.segments, state != nullptr ? &ssm_state : nullptr);
  if (state != nullptr) {
    store_rows(state->window, context.rows, window);
    store_rows(state->state, context.rows, ssm_state);
  }
  return linear(swiglu(linear(u, mixer.in_proj_z), y), mixer.out_proj);
}

}  // namespace mambify
