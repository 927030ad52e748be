// The parts of a pass that are Mamba layers'.
#include "decode/cuda_pass.h"

namespace mambify {

using kernels::DeviceMemory;
using kernels::Prefetch;

template <typename T>
kernels::Mamba1StepParams<T> CudaPass<T>::mamba1_step(const CudaBlock& block,
                                                      const LayerMemory& layer,
                                                      int64_t sequences) const {
  const Mamba1Config& sizes = config_.mamba1;
  const CudaMixer& mixer = block.mixer;
  const int64_t in_stride = kernels::padded(mixer.in.outputs);
  // The low rank of dt, B and C come behind x and z, or are projections of their own.
  const bool apart = sizes.selects_from_x;
  const T* selection = apart ? layer.selection.as<T>() : layer.in.as<T>();
  const int64_t stride = apart ? kernels::padded(mixer.selection.outputs) : in_stride;
  const std::vector<int64_t>& begins = apart ? mixer.selection.begins : mixer.in.begins;
  const size_t low = apart ? 0 : 2;
  return {.sequences = plan_.sequences(),
          .n_sequences = sequences,
          .ring_slots = sizes_.ring_slots,
          .d_inner = sizes.d_inner,
          .d_xb = sizes.d_xb,
          .d_state = sizes.d_state,
          .b_groups = sizes.b_groups,
          .c_groups = sizes.c_groups,
          .d_conv = sizes.d_conv,
          .x = layer.in.as<T>(),
          .x_stride = in_stride,
          .z = layer.in.as<T>() + mixer.in.begins[1],
          .z_stride = in_stride,
          .dt = layer.dt.as<T>(),
          .dt_stride = kernels::padded(sizes.d_inner),
          .B = selection + begins[low + 1],
          .b_stride = stride,
          .C = selection + begins[low + 2],
          .c_stride = stride,
          .conv_weight = elements_of(mixer.conv_weight),
          .conv_bias = elements_of(mixer.conv_bias),
          .convolved = layer.convolved.as<T>(),
          .convolved_stride = kernels::padded(sizes.d_inner),
          .dt_bias = mixer.dt_bias.as<float>(),
          .A = mixer.A.as<float>(),
          .D = mixer.D.as<float>(),
          .state = layer.state.as<float>(),
          .y = mixed_.as<T>(),
          .low = selection + begins[low],
          .low_stride = stride,
          .rank = mixer.dt.inputs};
}

template <typename T>
void CudaPass<T>::record_mamba1_inputs(const Bucket& bucket, const CudaBlock& block,
                                       const LayerMemory& layer) {
  const Mamba1Config& sizes = config_.mamba1;
  const CudaMixer& mixer = block.mixer;
  const int64_t in_stride = kernels::padded(mixer.in.outputs);
  const int64_t channels = sizes.d_inner, stride = kernels::padded(channels);
  kernels::PassLinearParams<T> in{.scatter = true, .y = layer.in.as<T>(), .y_stride = in_stride};
  const bool convolves = sizes.selects_from_x && sizes.d_conv == 4 &&
                         kernels::pass_linear_convolves<T>(bucket.tokens, config_.d_model);
  if (convolves) {
    in.conv = {.channels = channels,
               .weight = elements_of(mixer.conv_weight),
               .bias = elements_of(mixer.conv_bias),
               .ring_slots = sizes_.ring_slots,
               .y = layer.convolved.as<T>(),
               .y_stride = stride};
  }
  normed_linear(bucket, block.input_norm, mixer.in, in);
  if (!sizes.selects_from_x) return;
  if (!convolves) {
    kernels::conv_step_cuda<T>({.sequences = plan_.sequences(),
                                .n_sequences = bucket.sequences,
                                .ring_slots = sizes_.ring_slots,
                                .channels = channels,
                                .d_conv = sizes.d_conv,
                                .max_tokens = bucket.longest,
                                .x = layer.in.as<T>(),
                                .x_stride = in_stride,
                                .weight = elements_of(mixer.conv_weight),
                                .bias = elements_of(mixer.conv_bias),
                                .y = layer.convolved.as<T>(),
                                .y_stride = stride},
                               weights_of(mixer.selection), stream_);
  }
  linear(mixer.selection, {.rows = bucket.tokens,
                           .x = layer.convolved.as<T>(),
                           .x_stride = stride,
                           .gather = true,
                           .scatter = true,
                           .y = layer.selection.as<T>(),
                           .y_stride = kernels::padded(mixer.selection.outputs)});
}

template <typename T>
void CudaPass<T>::record_mamba1(const Bucket& bucket, const CudaBlock& block,
                                const LayerMemory& layer) {
  const Mamba1Config& sizes = config_.mamba1;
  const CudaMixer& mixer = block.mixer;
  record_mamba1_inputs(bucket, block, layer);
  kernels::Mamba1StepParams<T> step = mamba1_step(block, layer, bucket.sequences);
  Prefetch next;
  if (kernels::mamba1_step_projects_dt(step, bucket.longest)) {
    // The product behind it starts early enough to ask for its weights itself: to prefetch them
    // beside the step was slower.
    step.dt_weight = elements_of(mixer.dt.memory);
  } else {
    next = weights_of(mixer.out);
    linear(mixer.dt, {.rows = bucket.tokens,
                      .x = step.low,
                      .x_stride = step.low_stride,
                      .gather = true,
                      .scatter = true,
                      .y = step.dt,
                      .y_stride = step.dt_stride});
  }
  kernels::mamba1_step_cuda(step, next, stream_);
  add_to_residual(bucket, mixer.out, mixed_, sizes.d_inner);
}

template <typename T>
kernels::Mamba2StepParams<T> CudaPass<T>::mamba2_step(const CudaBlock& block,
                                                      const LayerMemory& layer,
                                                      int64_t sequences) const {
  const Mamba2Config& sizes = config_.mamba2;
  const CudaMixer& mixer = block.mixer;
  return {.sequences = plan_.sequences(),
          .n_sequences = sequences,
          .ring_slots = sizes_.ring_slots,
          .heads = sizes.n_heads,
          .head_dim = sizes.head_dim,
          .d_state = sizes.d_state,
          .x_groups = sizes.x_groups,
          .b_groups = sizes.b_groups,
          .c_groups = sizes.c_groups,
          .d_conv = sizes.d_conv,
          .conv_activation = sizes.conv_activation,
          .dt_min = static_cast<float>(sizes.dt_min),
          .dt_max = static_cast<float>(sizes.dt_max),
          .inputs = layer.in.as<T>() + sizes.d_inner(),
          .input_stride = kernels::padded(mixer.in.outputs),
          .conv_weight = elements_of(mixer.conv_weight),
          .conv_bias = elements_of(mixer.conv_bias),
          .dt_bias = mixer.dt_bias.as<float>(),
          .A = mixer.A.as<float>(),
          .D = mixer.D.as<float>(),
          .cos = sizes.rotary ? cos_.as<float>() : nullptr,
          .sin = sizes.rotary ? sin_.as<float>() : nullptr,
          .state = layer.state.as<float>(),
          .y = mixed_.as<T>()};
}

template <typename T>
void CudaPass<T>::record_mamba2(const Bucket& bucket, const CudaBlock& block,
                                const LayerMemory& layer) {
  const Mamba2Config& sizes = config_.mamba2;
  const CudaMixer& mixer = block.mixer;
  const int64_t in_stride = kernels::padded(mixer.in.outputs);
  normed_linear(bucket, block.input_norm, mixer.in,
                {.scatter = true, .y = layer.in.as<T>(), .y_stride = in_stride});
  kernels::mamba2_step_cuda(mamba2_step(block, layer, bucket.sequences), weights_of(mixer.out),
                            stream_);
  if (sizes.gate || sizes.norm) {
    kernels::pass_gated_norm_cuda<T>({.rows = bucket.tokens,
                                      .width = sizes.d_inner(),
                                      .group = sizes.norm_group_size,
                                      .gate = sizes.gate,
                                      .norm = sizes.norm,
                                      .eps = static_cast<float>(sizes.norm_eps),
                                      .y = mixed_.as<T>(),
                                      .z = layer.in.as<T>(),
                                      .z_stride = in_stride,
                                      .tokens = plan_.tokens(),
                                      .weight = elements_of(mixer.norm)},
                                     Prefetch{}, stream_);
  }
  add_to_residual(bucket, mixer.out, mixed_, sizes.d_inner());
}

template <typename T>
void CudaPass<T>::record_replay(int64_t sequences) {
  plan_.upload(/*tokens=*/0, sequences, /*draws=*/0, stream_);
  for (int64_t i = 0; i < config_.n_layer(); ++i) {
    const CudaBlock& block = weights_.blocks()[i];
    if (block.kind == MixerKind::mamba1) {
      kernels::mamba1_step_cuda(mamba1_step(block, layers_[i], sequences), Prefetch{}, stream_);
    } else if (block.kind == MixerKind::mamba2) {
      kernels::mamba2_step_cuda(mamba2_step(block, layers_[i], sequences), Prefetch{}, stream_);
    }
  }
}

template void CudaPass<float>::record_mamba1(const Bucket& bucket, const CudaBlock& block,
                                             const LayerMemory& layer);
template void CudaPass<float>::record_mamba2(const Bucket& bucket, const CudaBlock& block,
                                             const LayerMemory& layer);
template void CudaPass<float>::record_replay(int64_t sequences);
template void CudaPass<kernels::Bf16>::record_mamba1(const Bucket& bucket, const CudaBlock& block,
                                                     const LayerMemory& layer);
template void CudaPass<kernels::Bf16>::record_mamba2(const Bucket& bucket, const CudaBlock& block,
                                                     const LayerMemory& layer);
template void CudaPass<kernels::Bf16>::record_replay(int64_t sequences);

}  // namespace mambify
