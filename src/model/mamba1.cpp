#include <ATen/ops/cat.h>

#include "model/mixers.h"
#include "ops/causal_conv1d.h"
#include "ops/selective_scan.h"
#include "ops/swiglu.h"

namespace mambify {
namespace {

// What is computed of the layer's input before it meets the state: x and, unless they are projected
// from the convolved x, the raw step sizes, B and C.
struct RecurrentInputs {
  at::Tensor x;  // [tokens, d_xb]
  at::Tensor dt, B, C;
};

struct Projections {
  const Mamba1& mixer;
  const PackedWeights* packed;

  at::Tensor dt(const at::Tensor& source) const {
    return project(packed, project(packed, source, mixer.dt_proj_down), mixer.dt_proj);
  }
  at::Tensor B(const at::Tensor& source) const { return project(packed, source, mixer.B_proj); }
  at::Tensor C(const at::Tensor& source) const { return project(packed, source, mixer.C_proj); }
};

// The same of the pending tokens in front of each document's.
RecurrentInputs with_pending(const Mamba1Config& sizes, const RecurrentInputs& fresh,
                             const Replay& replay, at::Tensor& pending) {
  at::Tensor all =
      sizes.selects_from_x ? fresh.x : at::cat({fresh.x, fresh.dt, fresh.B, fresh.C}, 1);
  all = replay.with_pending(pending, all);
  replay.keep_pending(pending, all);
  if (sizes.selects_from_x) return {.x = all, .dt = {}, .B = {}, .C = {}};
  const auto parts =
      all.split_with_sizes({fresh.x.size(1), fresh.dt.size(1), fresh.B.size(1), fresh.C.size(1)},
                           /*dim=*/1);
  return {.x = parts[0], .dt = parts[1], .B = parts[2], .C = parts[3]};
}

// [tokens, d_xb] to [tokens, d_inner], in blocks of d_state.
at::Tensor repeated(const Mamba1Config& sizes, const at::Tensor& x) {
  if (sizes.d_xb == sizes.d_inner) return x;
  return x.unflatten(1, {sizes.d_xb / sizes.d_state, 1, sizes.d_state})
      .expand({-1, -1, sizes.d_inner / sizes.d_xb, -1})
      .reshape({x.size(0), sizes.d_inner});
}

}  // namespace

at::Tensor forward(const ModelConfig& config, const Mamba1& mixer, const at::Tensor& u,
                   const Context& context, MixerState* state) {
  const Mamba1Config& sizes = config.mamba1;
  const Projections projections{mixer, context.packed};
  RecurrentInputs in{.x = project(context.packed, u, mixer.in_proj_x), .dt = {}, .B = {}, .C = {}};
  if (!sizes.selects_from_x) {
    in.dt = projections.dt(u);
    in.B = projections.B(u);
    in.C = projections.C(u);
  }
  at::Tensor window, ssm_state;
  if (state != nullptr) {
    in = with_pending(sizes, in, context.replay, state->pending);
    window = select_rows(state->window, context.rows);
    ssm_state = select_rows(state->state, context.rows);
  }
  const Segments& segments = context.replay.segments();
  const at::Tensor x =
      causal_conv1d(repeated(sizes, in.x), mixer.conv_weight, mixer.conv_bias, segments,
                    /*silu=*/true, state != nullptr ? &window : nullptr);
  if (sizes.selects_from_x) {
    in.dt = projections.dt(x);
    in.B = projections.B(x);
    in.C = projections.C(x);
  }
  const SelectiveScanInputs inputs{
      .x = x,
      .dt = in.dt,
      .dt_bias = sizes.dt_bias_scale == 1 ? mixer.dt_bias : mixer.dt_bias * sizes.dt_bias_scale,
      .A = -mixer.A_log.exp(),
      .B = in.B.unflatten(1, {sizes.b_groups, sizes.d_state}),
      .C = in.C.unflatten(1, {sizes.c_groups, sizes.d_state}),
      .D = mixer.D};
  const at::Tensor y = selective_scan(inputs, segments, state != nullptr ? &ssm_state : nullptr);
  if (state != nullptr) {
    store_rows(state->window, context.rows, window);
    store_rows(state->state, context.rows, ssm_state);
  }
  const at::Tensor z = project(context.packed, u, mixer.in_proj_z);
  return project(context.packed, swiglu(z, context.replay.of_new_tokens(y)), mixer.out_proj);
}

}  // namespace mambify
