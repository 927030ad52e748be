// What a pass left behind, read back: scores and states.
#include <algorithm>

#include "decode/cuda_pass.h"

namespace mambify {

using kernels::DeviceMemory;

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
void CudaPass<T>::read_scores(int64_t scored, float* to) const {
  const int64_t outputs = weights_.output().outputs;
  std::vector<T> row(static_cast<size_t>(outputs));
  constexpr auto kBytes = static_cast<int64_t>(sizeof(T));
  scores_.read(row.data(), outputs * kBytes, scored * score_stride_ * kBytes);
  std::ranges::transform(row, to, [](T x) { return kernels::to_float(x); });
}

template <typename T>
void CudaPass<T>::read_state(const RowCounts& counts, std::vector<MixerState>& to) const {
  for (int64_t i = 0; i < config_.n_layer(); ++i) read_layer(i, counts, to[i]);
}

template void CudaPass<float>::read_scores(int64_t scored, float* to) const;
template void CudaPass<float>::read_state(const RowCounts& counts,
                                          std::vector<MixerState>& to) const;
template void CudaPass<kernels::Bf16>::read_scores(int64_t scored, float* to) const;
template void CudaPass<kernels::Bf16>::read_state(const RowCounts& counts,
                                                  std::vector<MixerState>& to) const;

}  // namespace mambify
