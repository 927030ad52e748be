#include "decode/cuda_pass.h"

#include <ATen/ops/arange.h>

#include <utility>

#include "core/error.h"
#include "kernels/cuda/random_fill.h"

namespace mambify {

using kernels::DeviceMemory;
using kernels::Prefetch;

namespace {

// Bytes of the weights behind a small kernel that are brought to the L2 cache while it runs.
constexpr int64_t kMostPrefetched = 16 << 20;

Prefetch weights_of(const CudaMatrix& matrix) {
  return {.data = matrix.memory.as<void>(),
          .bytes = std::min(matrix.memory.bytes(), kMostPrefetched)};
}

template <typename T>
const T* elements_of(const DeviceMemory& memory) {
  return memory.as<T>();
}

}  // namespace

template <typename T>
CudaPass<T>::CudaPass(const CudaWeights& weights, const CudaPassSizes& sizes, const CudaPlan& plan,
                      const kernels::PinnedMemory& ids, kernels::CudaStream stream)
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
        if (sizes.selects_from_x) layer.selection = ring(block.mixer.selection.outputs);
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
  score_stride_ = kernels::padded(config_.vocab_size);
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
         {&layer.keys, &layer.values, &layer.in, &layer.selection, &layer.dt}) {
      fill(*memory);
    }
    kernels::fill_random(layer.state.as<float>(), layer.state.bytes() / 4, 0.1f);
  }
}

template <typename T>
void CudaPass<T>::record(const Bucket& bucket) {
  plan_.upload(stream_);
  const CudaMatrix& embedding = weights_.embedding();
  kernels::pass_embed_cuda<T>({.rows = bucket.tokens,
                               .width = config_.d_model,
                               .tokens = plan_.tokens(),
                               .embedding = elements_of<T>(embedding.memory),
                               .stride = kernels::padded(embedding.inputs),
                               .y = residual_.as<T>()},
                              stream_);
  for (int64_t i = 0; i < config_.n_layer(); ++i) record_block(bucket, i);
  if (bucket.scored == 0) return;
  kernels::pass_norm_cuda<T>({.rows = bucket.tokens,
                              .width = config_.d_model,
                              .eps = static_cast<float>(config_.norm_eps),
                              .x = residual_.as<T>(),
                              .weight = elements_of<T>(weights_.final_norm()),
                              .tokens = plan_.tokens(),
                              .only_scored = true,
                              .y = normed_.as<T>(),
                              .scales = scales_.as<float>()},
                             weights_of(weights_.output()), stream_);
  linear(weights_.output(), {.rows = bucket.scored,
                             .outputs = config_.vocab_size,
                             .scales = scales_.as<float>(),
                             .x = normed_.as<T>(),
                             .x_stride = config_.d_model,
                             .y = scores_.as<T>(),
                             .y_stride = score_stride_});
  kernels::pass_draw_cuda<T>({.rows = bucket.scored,
                              .vocabulary = config_.vocab_size,
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
  p.weight = elements_of<T>(matrix.memory);
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
    p.norm = elements_of<T>(norm);
    p.norm_eps = eps;
  } else {
    kernels::pass_norm_cuda<T>({.rows = bucket.tokens,
                                .width = config_.d_model,
                                .eps = eps,
                                .x = residual_.as<T>(),
                                .weight = elements_of<T>(norm),
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
                {.bias = elements_of<T>(block.mixer.in_bias),
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
                  elements_of<T>(block.mixer.out_bias));
}

template <typename T>
kernels::Mamba1StepParams<T> CudaPass<T>::mamba1_step(const CudaBlock& block,
                                                      const LayerMemory& layer,
                                                      int64_t sequences) const {
  const Mamba1Config& sizes = config_.mamba1;
  const CudaMixer& mixer = block.mixer;
  const int64_t in_stride = kernels::padded(mixer.in.outputs);
  // dt, B and C come behind x and z, or are projections of their own.
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
          .conv_weight = elements_of<T>(mixer.conv_weight),
          .conv_bias = elements_of<T>(mixer.conv_bias),
          .dt_bias = mixer.dt_bias.as<float>(),
          .A = mixer.A.as<float>(),
          .D = mixer.D.as<float>(),
          .state = layer.state.as<float>(),
          .y = mixed_.as<T>()};
}

template <typename T>
void CudaPass<T>::record_selection(const Bucket& bucket, const CudaMixer& mixer,
                                   const LayerMemory& layer) {
  const int64_t channels = config_.mamba1.d_inner, taps = config_.mamba1.d_conv;
  const int64_t in_stride = kernels::padded(mixer.in.outputs);
  kernels::PassLinearParams<T> p{.rows = bucket.tokens,
                                 .scatter = true,
                                 .y = layer.selection.as<T>(),
                                 .y_stride = kernels::padded(mixer.selection.outputs)};
  if (taps == 4 && kernels::pass_linear_takes_conv<T>(bucket.tokens, channels)) {
    p.x = layer.in.as<T>();
    p.x_stride = in_stride;
    p.conv_weight = elements_of<T>(mixer.conv_weight);
    p.conv_bias = elements_of<T>(mixer.conv_bias);
    p.ring_slots = sizes_.ring_slots;
  } else {
    kernels::conv_step_cuda<T>({.sequences = plan_.sequences(),
                                .n_sequences = bucket.sequences,
                                .ring_slots = sizes_.ring_slots,
                                .channels = channels,
                                .d_conv = taps,
                                .max_tokens = bucket.longest,
                                .x = layer.in.as<T>(),
                                .x_stride = in_stride,
                                .weight = elements_of<T>(mixer.conv_weight),
                                .bias = elements_of<T>(mixer.conv_bias),
                                .y = mixed_.as<T>()},
                               weights_of(mixer.selection), stream_);
    p.x = mixed_.as<T>();
    p.x_stride = channels;
  }
  linear(mixer.selection, p);
}

template <typename T>
void CudaPass<T>::record_mamba1(const Bucket& bucket, const CudaBlock& block,
                                const LayerMemory& layer) {
  const Mamba1Config& sizes = config_.mamba1;
  const CudaMixer& mixer = block.mixer;
  const int64_t in_stride = kernels::padded(mixer.in.outputs);
  normed_linear(bucket, block.input_norm, mixer.in,
                {.scatter = true, .y = layer.in.as<T>(), .y_stride = in_stride});
  // The low rank of dt, in a ring whichever it comes from.
  const T* low = layer.in.as<T>() + (sizes.selects_from_x ? 0 : mixer.in.begins[2]);
  int64_t low_stride = in_stride;
  if (sizes.selects_from_x) {
    low = layer.selection.as<T>();
    low_stride = kernels::padded(mixer.selection.outputs);
    record_selection(bucket, mixer, layer);
  }
  linear(mixer.dt, {.rows = bucket.tokens,
                    .x = low,
                    .x_stride = low_stride,
                    .gather = true,
                    .scatter = true,
                    .y = layer.dt.as<T>(),
                    .y_stride = kernels::padded(sizes.d_inner)});
  kernels::mamba1_step_cuda(mamba1_step(block, layer, bucket.sequences), weights_of(mixer.out),
                            stream_);
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
          .conv_weight = elements_of<T>(mixer.conv_weight),
          .conv_bias = elements_of<T>(mixer.conv_bias),
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
                                      .weight = elements_of<T>(mixer.norm)},
                                     Prefetch{}, stream_);
  }
  add_to_residual(bucket, mixer.out, mixed_, sizes.d_inner());
}

template <typename T>
void CudaPass<T>::read_layer(int64_t i, const RowCounts& counts, MixerState& to) const {
  const LayerMemory& layer = layers_[i];
  const auto copy = [](const DeviceMemory& from, at::Tensor& tensor) {
    from.read(tensor.mutable_data_ptr(), static_cast<int64_t>(tensor.nbytes()));
  };
  switch (config_.layers[i]) {
    case MixerKind::attention:
      copy(layer.keys, to.keys);
      copy(layer.values, to.values);
      return;
    case MixerKind::mamba1: {
      const Mamba1Config& sizes = config_.mamba1;
      copy(layer.state, to.state);
      // Channel d of d_inner sees this one of d_xb.
      const auto channel = [&](int64_t d) {
        const int64_t repeats = sizes.d_inner / sizes.d_xb;
        return repeats == 1 ? d : d / sizes.d_state / repeats * sizes.d_state + d % sizes.d_state;
      };
      return read_window(i, counts, sizes.d_conv - 1, 0, channel, to.window);
    }
    case MixerKind::mamba2: {
      const Mamba2Config& sizes = config_.mamba2;
      copy(layer.state, to.state);
      const auto channel = [](int64_t c) { return c; };
      return read_window(i, counts, sizes.d_conv - 1, sizes.d_inner(), channel, to.window);
    }
  }
}

template <typename T>
template <typename Channel>
void CudaPass<T>::read_window(int64_t i, const RowCounts& counts, int64_t width, int64_t begin,
                              const Channel& channel, at::Tensor& window) const {
  const int64_t stride = kernels::padded(weights_.blocks()[i].mixer.in.outputs);
  std::vector<T> ring(static_cast<size_t>(counts.rows() * sizes_.ring_slots * stride));
  layers_[i].in.read(ring.data(), static_cast<int64_t>(ring.size() * sizeof(T)));
  float* to = window.mutable_data_ptr<float>();
  for (int64_t row = 0; row < counts.rows(); ++row) {
    for (int64_t c = 0; c < window.size(1); ++c) {
      for (int64_t k = 0; k < width; ++k) {
        const int64_t position = counts.lengths[row] - width + k;
        const int64_t place = row * sizes_.ring_slots + position % sizes_.ring_slots;
        *to++ = position < 0 ? 0.0f : kernels::to_float(ring[place * stride + begin + channel(c)]);
      }
    }
  }
}

template <typename T>
void CudaPass<T>::record_replay(int64_t sequences) {
  plan_.upload(stream_);
  for (int64_t i = 0; i < config_.n_layer(); ++i) {
    const CudaBlock& block = weights_.blocks()[i];
    if (block.kind == MixerKind::mamba1) {
      kernels::mamba1_step_cuda(mamba1_step(block, layers_[i], sequences), Prefetch{}, stream_);
    } else if (block.kind == MixerKind::mamba2) {
      kernels::mamba2_step_cuda(mamba2_step(block, layers_[i], sequences), Prefetch{}, stream_);
    }
  }
}

template <typename T>
void CudaPass<T>::read_scores(int64_t scored, float* to) const {
  std::vector<T> row(static_cast<size_t>(config_.vocab_size));
  constexpr auto kBytes = static_cast<int64_t>(sizeof(T));
  scores_.read(row.data(), config_.vocab_size * kBytes, scored * score_stride_ * kBytes);
  std::ranges::transform(row, to, [](T x) { return kernels::to_float(x); });
}

template <typename T>
void CudaPass<T>::read_state(const RowCounts& counts, std::vector<MixerState>& to) const {
  for (int64_t i = 0; i < config_.n_layer(); ++i) read_layer(i, counts, to[i]);
}

template class CudaPass<float>;
template class CudaPass<kernels::Bf16>;

}  // namespace mambify
