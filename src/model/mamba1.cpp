#include <ATen/TensorOperators.h>
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

}  // namespace

at::Tensor forward(const ModelConfig& config, const Mamba1& weights, const at::Tensor& u,
                   const Context& context, MixerState* state) {
  const Mamba1Config& sizes = config.mamba1;
  Mamba1 mixer = weights;  // handles
  if (u.is_cuda()) align_rank(mixer.dt_proj_down, mixer.dt_proj);
  const std::vector<at::Tensor> from_u =
      project_group(context.packed, u, input_projections(mixer, sizes.selects_from_x));
  const at::Tensor& z = from_u[1];
  RecurrentInputs in{.x = from_u[0], .dt = {}, .B = {}, .C = {}};
  // low, B, C: the products of selection_projections.
  const auto select = [&](const at::Tensor& low, const at::Tensor& B, const at::Tensor& C) {
    in.dt = project(context.packed, low, mixer.dt_proj);
    in.B = B;
    in.C = C;
  };
  if (!sizes.selects_from_x) select(from_u[2], from_u[3], from_u[4]);
  at::Tensor window, ssm_state;
  if (state != nullptr) {
    in = with_pending(sizes, in, context.replay, state->pending);
    window = select_rows(state->window, context.rows);
    ssm_state = select_rows(state->state, context.rows);
  }
  const Segments& segments = context.replay.segments();
  const at::Tensor x =
      causal_conv1d(in.x, mixer.conv_weight, mixer.conv_bias, segments, /*silu=*/true,
                    state != nullptr ? &window : nullptr, /*x_block=*/sizes.d_state);
  if (sizes.selects_from_x) {
    const auto from_x = project_group(context.packed, x, selection_projections(mixer));
    select(from_x[0], from_x[1], from_x[2]);
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
  return project(context.packed, swiglu(z, context.replay.of_new_tokens(y)), mixer.out_proj);
}

}  // namespace mambify
