// Layers of the multi-step kernels' three kinds behind one interface: the definition's on the host
// and the kernel's on the device, fed the same inputs.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/multi_step/params.h"
#include "numerics.h"

namespace mambify::kernels::multi_step_testing {

inline constexpr int64_t kSlots = 96;
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <typename T>
T from_float(float x) {
  if constexpr (std::is_same_v<T, Bf16>) {
    return {static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16)};
  } else {
    return x;
  }
}

// An array of the definition's and one of the kernel's.
template <typename T>
struct Mirror {
  Mirror() = default;
  explicit Mirror(std::vector<T> values)
      : host(std::move(values)), memory(static_cast<int64_t>(host.size() * sizeof(T))) {
    upload();
  }
  void upload() { memory.write(host.data(), static_cast<int64_t>(host.size() * sizeof(T))); }
  std::vector<T> download() const {
    std::vector<T> values(host.size());
    memory.read(values.data(), static_cast<int64_t>(values.size() * sizeof(T)));
    return values;
  }
  T* data(bool device) { return device ? memory.as<T>() : host.data(); }

  std::vector<T> host;
  DeviceMemory memory;
};

template <typename T>
std::vector<T> noise(int64_t count, uint64_t seed, float scale = 1, float mean = 0) {
  std::vector<T> values;
  for (const float x : testing::random_values<float>(count, seed, scale, mean)) {
    values.push_back(from_float<T>(x));
  }
  return values;
}

inline std::vector<float> decays(int64_t count) {
  std::vector<float> A = noise<float>(count, 12);
  for (float& a : A) a = -std::exp(a);
  return A;
}

// What the projections of a layer write, for several rows; everything unwritten is NaN.
template <typename T>
struct Ring {
  Ring(int64_t rows, int64_t width) : width(width), stride(width + 3) {
    mirror = Mirror<T>(std::vector<T>(rows * kSlots * stride, from_float<T>(kNan)));
  }
  int64_t width, stride;
  Mirror<T> mirror;
};

// A layer of any of the three kinds behind one interface.
template <typename T>
struct Layer {
  int64_t rows = 0;
  int64_t state_size = 0;  // of a row
  int64_t y_width = 0;
  std::vector<Ring<T>> rings;
  std::vector<Mirror<T>> weights;
  std::vector<Mirror<float>> constants;
  Mirror<float> state;
  int y_ring = -1;  // which of the rings y is in; -1: in none
  // Runs the kernel or the definition.
  std::function<void(Layer&, const PassSequence*, int64_t count, T* y, bool device)> run;

  // The input of a position; a stream is what a sequence would compute there.
  void feed(int64_t row, int64_t position, int64_t stream) {
    for (size_t i = 0; i < rings.size(); ++i) {
      Ring<T>& ring = rings[i];
      const auto values = noise<T>(ring.width, (stream * 1000 + position) * 10 + i);
      std::copy(values.begin(), values.end(),
                ring.mirror.host.begin() + (row * kSlots + position % kSlots) * ring.stride);
    }
  }

  std::vector<T> run_on_host(const std::vector<PassSequence>& sequences, int64_t tokens) {
    std::vector<T> y(tokens * y_width, from_float<T>(kNan));
    run(*this, sequences.data(), sequences.size(), y.data(), /*device=*/false);
    if (y_ring >= 0) read_ring(rings[y_ring].mirror.host, sequences, y);
    return y;
  }
  std::vector<T> run_on_device(const std::vector<PassSequence>& sequences, int64_t tokens) {
    for (Ring<T>& ring : rings) ring.mirror.upload();
    Mirror<PassSequence> places(sequences);
    // One element, so that there is memory in a pass without new tokens.
    Mirror<T> y(std::vector<T>(tokens * y_width + 1, from_float<T>(kNan)));
    run(*this, places.memory.template as<PassSequence>(), sequences.size(), y.data(true),
        /*device=*/true);
    synchronise(nullptr);
    std::vector<T> values = y.download();
    values.pop_back();
    if (y_ring >= 0) read_ring(rings[y_ring].mirror.download(), sequences, values);
    return values;
  }

 private:
  // The new tokens' y.
  void read_ring(const std::vector<T>& ring, const std::vector<PassSequence>& sequences,
                 std::vector<T>& y) const {
    for (const PassSequence& s : sequences) {
      for (int64_t t = 0; t < s.tokens; ++t) {
        const int64_t place = s.row * kSlots + (s.base + s.pending + t) % kSlots;
        std::copy_n(ring.begin() + place * rings[y_ring].stride, y_width,
                    y.begin() + (s.first + t) * y_width);
      }
    }
  }
};

template <typename T>
using MakeLayer = std::function<Layer<T>(int64_t rows)>;

template <typename Params>
void set_common(Params& p, const PassSequence* sequences, int64_t count) {
  p.sequences = sequences;
  p.n_sequences = count;
  p.ring_slots = kSlots;
}

template <typename T>
Layer<T> start_layer(int64_t rows, int64_t state_size, int64_t y_width,
                     const std::vector<int64_t>& ring_widths, int64_t channels, int64_t d_conv) {
  Layer<T> layer;
  layer.rows = rows;
  layer.state_size = state_size;
  layer.y_width = y_width;
  for (const int64_t width : ring_widths) layer.rings.emplace_back(rows, width);
  layer.weights.emplace_back(noise<T>(channels * d_conv, 1, 0.5f));
  layer.weights.emplace_back(noise<T>(channels, 2, 0.2f));
  layer.state = Mirror<float>(std::vector<float>(rows * state_size + 1, kNan));
  return layer;
}

struct Mamba2Shape {
  int64_t heads, head_dim, d_state, x_groups, b_groups, c_groups;
  int64_t d_conv = 4;
  bool activation = true, rotary = false;
  float dt_min = 0, dt_max = std::numeric_limits<float>::infinity();
};

template <typename T>
Layer<T> make_mamba2(const Mamba2Shape& shape, int64_t rows) {
  const int64_t channels =
      shape.x_groups * shape.head_dim + (shape.b_groups + shape.c_groups) * shape.d_state;
  Layer<T> layer = start_layer<T>(rows, shape.heads * shape.head_dim * shape.d_state,
                                  shape.heads * shape.head_dim, {channels + shape.heads}, channels,
                                  shape.d_conv);
  layer.constants.emplace_back(noise<float>(shape.heads, 11, 1, -2));
  layer.constants.emplace_back(decays(shape.heads));
  layer.constants.emplace_back(noise<float>(shape.heads, 13));
  constexpr int64_t kPositions = 1024;
  std::vector<float> cos, sin;
  for (int64_t i = 0; i < kPositions * (shape.d_state / 2); ++i) {
    const float angle = 0.37f * static_cast<float>(i % 1009);
    cos.push_back(std::cos(angle));
    sin.push_back(std::sin(angle));
  }
  layer.constants.emplace_back(cos);
  layer.constants.emplace_back(sin);
  layer.run = [shape](Layer<T>& l, const PassSequence* sequences, int64_t count, T* y,
                      bool device) {
    Mamba2StepParams<T> p;
    set_common(p, sequences, count);
    p.heads = shape.heads;
    p.head_dim = shape.head_dim;
    p.d_state = shape.d_state;
    p.x_groups = shape.x_groups;
    p.b_groups = shape.b_groups;
    p.c_groups = shape.c_groups;
    p.d_conv = shape.d_conv;
    p.conv_activation = shape.activation;
    p.dt_min = shape.dt_min;
    p.dt_max = shape.dt_max;
    p.inputs = l.rings[0].mirror.data(device);
    p.input_stride = l.rings[0].stride;
    p.conv_weight = l.weights[0].data(device);
    p.conv_bias = l.weights[1].data(device);
    p.dt_bias = l.constants[0].data(device);
    p.A = l.constants[1].data(device);
    p.D = l.constants[2].data(device);
    if (shape.rotary) {
      p.cos = l.constants[3].data(device);
      p.sin = l.constants[4].data(device);
    }
    p.state = l.state.data(device);
    p.y = y;
    if (!device) return mamba2_step_reference(p);
    mamba2_step_cuda(p, {l.weights[0].data(true), 512}, nullptr);
  };
  return layer;
}

struct Mamba1Shape {
  int64_t d_inner, d_xb, d_state, b_groups, c_groups;
  int64_t d_conv = 4;
};

template <typename T>
Layer<T> make_mamba1(const Mamba1Shape& shape, int64_t rows) {
  const int64_t d_inner = shape.d_inner, N = shape.d_state;
  Layer<T> layer =
      start_layer<T>(rows, d_inner * N, d_inner,
                     {shape.d_xb, d_inner, d_inner, shape.b_groups * N, shape.c_groups * N},
                     d_inner, shape.d_conv);
  layer.constants.emplace_back(noise<float>(d_inner, 11, 1, -2));
  layer.constants.emplace_back(decays(d_inner * N));
  layer.constants.emplace_back(noise<float>(d_inner, 13));
  layer.run = [shape](Layer<T>& l, const PassSequence* sequences, int64_t count, T* y,
                      bool device) {
    Mamba1StepParams<T> p;
    set_common(p, sequences, count);
    p.d_inner = shape.d_inner;
    p.d_xb = shape.d_xb;
    p.d_state = shape.d_state;
    p.b_groups = shape.b_groups;
    p.c_groups = shape.c_groups;
    p.d_conv = shape.d_conv;
    p.x = l.rings[0].mirror.data(device);
    p.x_stride = l.rings[0].stride;
    p.z = l.rings[1].mirror.data(device);
    p.z_stride = l.rings[1].stride;
    p.dt = l.rings[2].mirror.data(device);
    p.dt_stride = l.rings[2].stride;
    p.B = l.rings[3].mirror.data(device);
    p.b_stride = l.rings[3].stride;
    p.C = l.rings[4].mirror.data(device);
    p.c_stride = l.rings[4].stride;
    p.conv_weight = l.weights[0].data(device);
    p.conv_bias = l.weights[1].data(device);
    p.dt_bias = l.constants[0].data(device);
    p.A = l.constants[1].data(device);
    p.D = l.constants[2].data(device);
    p.state = l.state.data(device);
    p.y = y;
    if (!device) return mamba1_step_reference(p);
    mamba1_step_cuda(p, {l.constants[1].data(true), 128}, nullptr);
  };
  return layer;
}

template <typename T>
Layer<T> make_conv(int64_t channels, int64_t d_conv, int64_t rows) {
  Layer<T> layer =
      start_layer<T>(rows, /*state_size=*/0, channels, {channels, channels}, channels, d_conv);
  layer.y_ring = 1;
  layer.run = [channels, d_conv](Layer<T>& l, const PassSequence* sequences, int64_t count, T*,
                                 bool device) {
    ConvStepParams<T> p;
    set_common(p, sequences, count);
    p.channels = channels;
    p.d_conv = d_conv;
    p.x = l.rings[0].mirror.data(device);
    p.x_stride = l.rings[0].stride;
    p.weight = l.weights[0].data(device);
    p.bias = l.weights[1].data(device);
    p.y = l.rings[1].mirror.data(device);
    p.y_stride = l.rings[1].stride;
    if (!device) return conv_step_reference(p);
    conv_step_cuda(p, {}, nullptr);
  };
  return layer;
}

}  // namespace mambify::kernels::multi_step_testing
