// Draws of new parameters as LibTorch's layers and the published Mamba code make them, but from
// counter-based random numbers: a value depends on the seed, the layer, the parameter and its
// index.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/random.h"

namespace mambify {

// Which parameter of a layer is drawn. The numbers are part of what a seed means: add, never move.
enum class DrawnParameter : uint32_t {
  z,
  x,
  B,
  C,
  dt,
  conv_weight,
  conv_bias,
  dt_bias,
  A,
  out,
  dt_down,
};

class LayerInitialiser {
 public:
  LayerInitialiser(uint64_t seed, int64_t layer)
      : random_(seed, RandomPurpose::init, static_cast<uint32_t>(layer)) {}

  // Uniform in [low, high); fp32.
  at::Tensor uniform(DrawnParameter parameter, at::IntArrayRef shape, double low,
                     double high) const;
  // A linear layer's weight [rows, columns]: kaiming_uniform with a = sqrt(5), which is uniform
  // within 1 / sqrt(columns). Also right for a depthwise convolution [channels, width].
  at::Tensor linear(DrawnParameter parameter, int64_t rows, int64_t columns) const;
  // The bias whose softplus is log-uniform in [1e-3, 0.1]. [size]
  at::Tensor step_size_bias(int64_t size) const;

 private:
  CounterRandom random_;
};

}  // namespace mambify
