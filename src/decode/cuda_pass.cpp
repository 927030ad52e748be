#include "decode/cuda_pass.h"

#include <ATen/ops/arange.h>

#include <utility>

#include "core/error.h"
#include "kernels/cuda/random_fill.h"

namespace mambify {

using kernels::DeviceMemory;

template <typename T>
CudaPass<T>::CudaPass(const CudaWeights& weights, const CudaPassSizes& sizes, const CudaPlan& plan,
                      std::span<const TokenId> tokens, const kernels::PinnedMemory& ids,
                      kernels::CudaStream stream)
    : weights_(weights),
      config_(weights.config()),
      sizes_(sizes),
      plan_(plan),
      ids_(ids),
      stream_(stream) {
  allocate(/*counts_only=*/true);
  const int64_t needed = std::exchange(bytes_, 0), free = kernels::cuda_free_bytes();
  if (needed > free) {
    throw Error(
        "{} sequences of {} tokens need {:.1f} GB beside the weights, the device has {:.1f} GB "
        "left",
        sizes.rows, sizes.capacity, static_cast<double>(needed) / 1e9,
        static_cast<double>(free) / 1e9);
  }
  allocate(/*counts_only=*/false);
  if (tokens.empty()) return;
  output_tokens_ = DeviceMemory(static_cast<int64_t>(tokens.size_bytes()));
  output_tokens_.write(tokens.data(), output_tokens_.bytes());
  bytes_ += output_tokens_.bytes();
}

template <typename T>
void CudaPass<T>::allocate(bool counts_only) {
  const int64_t rows = sizes_.rows;
  const auto memory = [&](int64_t bytes) {
    bytes_ += bytes;
    return counts_only ? DeviceMemory() : DeviceMemory(bytes);
  };
  const auto elements = [&](int64_t count) {
    return memory(count * static_cast<int64_t>(sizeof(T)));
  };
  // One place more, for tokens that fill a bucket.
  const auto ring = [&](int64_t width) {
    return elements((rows * sizes_.ring_slots + 1) * kernels::padded(width));
  };
  int64_t widest = 0;  // of what is between two kernels
  const bool has_attention = config_.count(MixerKind::attention) > 0;
  for (const CudaBlock& block : weights_.blocks()) {
    LayerMemory layer;
    const int64_t in_width = kernels::padded(block.mixer.in.outputs);
    switch (block.kind) {
      case MixerKind::attention: {
        const AttentionConfig& sizes = config_.attention;
        layer.keys = elements(rows * sizes.n_kv_heads * sizes_.capacity * sizes.head_dim);
        layer.values = elements(rows * sizes.n_kv_heads * sizes_.capacity * sizes.head_dim);
        widest = std::max(widest, in_width);
        break;
      }
      case MixerKind::mamba1: {
        const Mamba1Config& sizes = config_.mamba1;
        layer.in = ring(in_width);
        if (sizes.selects_from_x) {
          layer.convolved = ring(sizes.d_inner);
          layer.selection = ring(block.mixer.selection.outputs);
        }
        layer.dt = ring(sizes.d_inner);
        layer.state = memory(rows * sizes.d_inner * sizes.d_state * 4);
        widest = std::max(widest, sizes.d_inner);
        break;
      }
      case MixerKind::mamba2: {
        const Mamba2Config& sizes = config_.mamba2;
        layer.in = ring(in_width);
        layer.state = memory(rows * sizes.d_inner() * sizes.d_state * 4);
        widest = std::max(widest, sizes.d_inner());
        break;
      }
    }
    if (block.post_norm.bytes() > 0) widest = std::max(widest, block.gate_up.begins[1]);
    if (!counts_only) layers_.push_back(std::move(layer));
  }
  residual_ = elements(sizes_.tokens * config_.d_model);
  normed_ = elements(sizes_.tokens * config_.d_model);
  scales_ = memory(sizes_.tokens * 4);
  wide_ = elements(sizes_.tokens * kernels::padded(widest));
  mixed_ = elements(sizes_.tokens * kernels::padded(widest));
  score_stride_ = kernels::padded(weights_.output().outputs);
  scores_ = elements(sizes_.scored * score_stride_);
  draw_scratch_ = memory(kernels::pass_draw_scratch_bytes(sizes_.scored));
  if (has_attention) {
    const AttentionConfig& sizes = config_.attention;
    parts_ = memory(std::max(
        kernels::pass_attention_scratch_bytes(sizes_.scored, sizes.n_heads, sizes.head_dim,
                                              cache_splits_of(sizes_.capacity)),
        kernels::pass_attention_stream_bytes(sizes_.tokens, sizes.n_heads, sizes.head_dim)));
    counters_ = memory(4 * kernels::pass_attention_counters(sizes_.sequences, sizes.n_kv_heads,
                                                            cache_splits_of(sizes_.capacity)));
  }
  if (has_attention || (config_.count(MixerKind::mamba2) > 0 && config_.mamba2.rotary)) {
    const int64_t angles = sizes_.capacity * (config_.attention.head_dim / 2) * 4;
    cos_ = memory(angles);
    sin_ = memory(angles);
    if (counts_only) return;
    const RotaryTable table = rotary_table(config_.attention.rope, config_.attention.head_dim,
                                           at::arange(sizes_.capacity, at::kLong));
    cos_.write(table.cos.const_data_ptr(), cos_.bytes());
    sin_.write(table.sin.const_data_ptr(), sin_.bytes());
  }
}

template <typename T>
void CudaPass<T>::fill_randomly() {
  const auto fill = [](const DeviceMemory& memory) {
    kernels::fill_random(memory.as<T>(), memory.bytes() / static_cast<int64_t>(sizeof(T)), 1);
  };
  for (const LayerMemory& layer : layers_) {
    for (const DeviceMemory* memory :
         {&layer.keys, &layer.values, &layer.in, &layer.convolved, &layer.selection, &layer.dt}) {
      fill(*memory);
    }
    kernels::fill_random(layer.state.as<float>(), layer.state.bytes() / 4, 0.1f);
  }
}

template <typename T>
void CudaPass<T>::record(const Bucket& bucket) {
  plan_.upload(bucket.tokens, bucket.sequences, bucket.scored, stream_);
  const CudaMatrix& embedding = weights_.embedding();
  kernels::pass_embed_cuda<T>({.rows = bucket.tokens,
                               .width = config_.d_model,
                               .tokens = plan_.tokens(),
                               .embedding = elements_of(embedding.memory),
                               .stride = kernels::padded(embedding.inputs),
                               .y = residual_.as<T>()},
                              stream_);
  for (int64_t i = 0; i < config_.n_layer(); ++i) record_block(bucket, i);
  if (bucket.scored > 0) record_scores(bucket);
}

template <typename T>
void CudaPass<T>::record_scores(const Bucket& bucket) {
  const CudaMatrix& output = weights_.output();
  // Where there are as many as tokens, they are these, in their order.
  if (bucket.scored == bucket.tokens &&
      kernels::pass_linear_takes_norm<T>(bucket.tokens, config_.d_model)) {
    normed_linear(bucket, weights_.final_norm(), output,
                  {.y = scores_.as<T>(), .y_stride = score_stride_});
    return record_draws(bucket);
  }
  kernels::pass_norm_cuda<T>({.rows = bucket.tokens,
                              .width = config_.d_model,
                              .eps = static_cast<float>(config_.norm_eps),
                              .x = residual_.as<T>(),
                              .weight = elements_of(weights_.final_norm()),
                              .tokens = plan_.tokens(),
                              .only_scored = true,
                              .y = normed_.as<T>(),
                              .scales = scales_.as<float>()},
                             weights_of(output), stream_);
  linear(output, {.rows = bucket.scored,
                  .scales = scales_.as<float>(),
                  .x = normed_.as<T>(),
                  .x_stride = config_.d_model,
                  .y = scores_.as<T>(),
                  .y_stride = score_stride_});
  record_draws(bucket);
}

template <typename T>
void CudaPass<T>::record_draws(const Bucket& bucket) {
  kernels::pass_draw_cuda<T>({.rows = bucket.scored,
                              .outputs = weights_.output().outputs,
                              .tokens = output_tokens_.as<int32_t>(),
                              .scores = scores_.as<T>(),
                              .stride = score_stride_,
                              .draws = plan_.draws(),
                              .scratch = draw_scratch_.as<void>(),
                              .ids = ids_.as<int32_t>()},
                             stream_);
}

template <typename T>
void CudaPass<T>::linear(const CudaMatrix& matrix, Linear p) {
  p.inputs = matrix.inputs;
  if (p.outputs == 0) p.outputs = matrix.outputs;
  p.weight = elements_of(matrix.memory);
  p.tokens = plan_.tokens();
  kernels::pass_linear_cuda<T>(p, stream_);
}

template <typename T>
void CudaPass<T>::normed_linear(const Bucket& bucket, const DeviceMemory& norm,
                                const CudaMatrix& matrix, Linear p) {
  p.rows = bucket.tokens;
  p.x_stride = config_.d_model;
  const auto eps = static_cast<float>(config_.norm_eps);
  if (kernels::pass_linear_takes_norm<T>(bucket.tokens, config_.d_model)) {
    p.x = residual_.as<T>();
    p.norm = elements_of(norm);
    p.norm_eps = eps;
  } else {
    kernels::pass_norm_cuda<T>({.rows = bucket.tokens,
                                .width = config_.d_model,
                                .eps = eps,
                                .x = residual_.as<T>(),
                                .weight = elements_of(norm),
                                .y = normed_.as<T>(),
                                .scales = scales_.as<float>()},
                               weights_of(matrix), stream_);
    p.x = normed_.as<T>();
    p.scales = scales_.as<float>();
  }
  linear(matrix, p);
}

template <typename T>
void CudaPass<T>::add_to_residual(const Bucket& bucket, const CudaMatrix& matrix,
                                  const DeviceMemory& x, int64_t x_stride, const T* bias) {
  linear(matrix, {.rows = bucket.tokens,
                  .x = x.as<T>(),
                  .x_stride = x_stride,
                  .bias = bias,
                  .residual = residual_.as<T>(),
                  .y = residual_.as<T>(),
                  .y_stride = config_.d_model});
}

template <typename T>
void CudaPass<T>::record_block(const Bucket& bucket, int64_t i) {
  const CudaBlock& block = weights_.blocks()[i];
  switch (block.kind) {
    case MixerKind::attention:
      record_attention(bucket, block, layers_[i]);
      break;
    case MixerKind::mamba1:
      record_mamba1(bucket, block, layers_[i]);
      break;
    case MixerKind::mamba2:
      record_mamba2(bucket, block, layers_[i]);
      break;
  }
  if (block.post_norm.bytes() == 0) return;
  const int64_t width = block.gate_up.begins[1];  // of a gate, padded
  normed_linear(bucket, block.post_norm, block.gate_up,
                {.outputs = width, .gated = true, .y = wide_.as<T>(), .y_stride = width});
  add_to_residual(bucket, block.down, wide_, width);
}

template <typename T>
bool CudaPass<T>::streams(const Bucket& bucket) const {
  constexpr int64_t kMostAtOnce = 64;
  return bucket.tokens > sizes_.scored || bucket.longest > kMostAtOnce;
}

template <typename T>
void CudaPass<T>::record_attention(const Bucket& bucket, const CudaBlock& block,
                                   const LayerMemory& layer) {
  const AttentionConfig& sizes = config_.attention;
  normed_linear(bucket, block.input_norm, block.mixer.in,
                {.bias = elements_of(block.mixer.in_bias),
                 .y = wide_.as<T>(),
                 .y_stride = block.mixer.in.outputs});
  kernels::pass_attention_cuda<T>(
      {.sequences = plan_.sequences(),
       .n_sequences = bucket.sequences,
       .max_tokens = bucket.longest,
       .splits = bucket.splits,
       .heads = sizes.n_heads,
       .kv_heads = sizes.n_kv_heads,
       .head_dim = sizes.head_dim,
       .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(sizes.head_dim))),
       .qkv = wide_.as<T>(),
       .cos = cos_.as<float>(),
       .sin = sin_.as<float>(),
       .keys = layer.keys.as<T>(),
       .values = layer.values.as<T>(),
       .capacity = sizes_.capacity,
       .streams = streams(bucket),
       .parts = parts_.as<float>(),
       .counters = counters_.as<int32_t>(),
       .y = mixed_.as<T>()},
      weights_of(block.mixer.out), stream_);
  add_to_residual(bucket, block.mixer.out, mixed_, sizes.n_heads * sizes.head_dim,
                  elements_of(block.mixer.out_bias));
}

template CudaPass<float>::CudaPass(const CudaWeights& weights, const CudaPassSizes& sizes,
                                   const CudaPlan& plan, std::span<const TokenId> tokens,
                                   const kernels::PinnedMemory& ids, kernels::CudaStream stream);
template void CudaPass<float>::fill_randomly();
template void CudaPass<float>::record(const Bucket& bucket);
template void CudaPass<float>::linear(const CudaMatrix& matrix, kernels::PassLinearParams<float> p);
template void CudaPass<float>::normed_linear(const Bucket& bucket, const DeviceMemory& norm,
                                             const CudaMatrix& matrix,
                                             kernels::PassLinearParams<float> p);
template void CudaPass<float>::add_to_residual(const Bucket& bucket, const CudaMatrix& matrix,
                                               const DeviceMemory& x, int64_t x_stride,
                                               const float* bias);
template CudaPass<kernels::Bf16>::CudaPass(const CudaWeights& weights, const CudaPassSizes& sizes,
                                           const CudaPlan& plan, std::span<const TokenId> tokens,
                                           const kernels::PinnedMemory& ids,
                                           kernels::CudaStream stream);
template void CudaPass<kernels::Bf16>::fill_randomly();
template void CudaPass<kernels::Bf16>::record(const Bucket& bucket);
template void CudaPass<kernels::Bf16>::linear(const CudaMatrix& matrix,
                                              kernels::PassLinearParams<kernels::Bf16> p);
template void CudaPass<kernels::Bf16>::normed_linear(const Bucket& bucket, const DeviceMemory& norm,
                                                     const CudaMatrix& matrix,
                                                     kernels::PassLinearParams<kernels::Bf16> p);
template void CudaPass<kernels::Bf16>::add_to_residual(const Bucket& bucket,
                                                       const CudaMatrix& matrix,
                                                       const DeviceMemory& x, int64_t x_stride,
                                                       const kernels::Bf16* bias);

}  // namespace mambify
