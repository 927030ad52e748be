// A layer of attention on the device, as passes of an engine use it, and what it is fed.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "device_values.h"
#include "kernels/pass_attention/params.h"

namespace mambify::kernels::attention_testing {

using testing::on_device;
using testing::on_host;
using testing::random_values;

struct Shape {
  int64_t heads, kv_heads, head_dim;

  int64_t qkv_width() const { return (heads + 2 * kv_heads) * head_dim; }
  int64_t y_width() const { return heads * head_dim; }
};

// Angles of every position that a test reads.
struct Angles {
  explicit Angles(int64_t head_dim) {
    for (int64_t position = 0; position < 4352; ++position) {
      for (int64_t i = 0; i < head_dim / 2; ++i) {
        const double angle = position * std::pow(10000.0, -2.0 * i / head_dim);
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    }
  }
  std::vector<float> cos, sin;
};

// Keys and values of all rows, on the host. NaN where no token has been.
template <typename T>
struct Caches {
  std::vector<T> keys, values;
};

template <typename T>
Caches<T> empty_caches(const Shape& shape, int64_t rows, int64_t capacity) {
  const auto nothing =
      narrowed<T>(testing::nan_values<float>(rows * shape.kv_heads * capacity * shape.head_dim));
  return {nothing, nothing};
}

// Random keys and values of a row's first `positions`.
template <typename T>
void fill(Caches<T>& caches, const Shape& shape, int64_t row, int64_t capacity, int64_t positions,
          uint64_t seed) {
  const int64_t count = positions * shape.head_dim;
  for (int64_t g = 0; g < shape.kv_heads; ++g) {
    const int64_t offset = (row * shape.kv_heads + g) * capacity * shape.head_dim;
    const auto keys = narrowed<T>(random_values<float>(count, 2 * (seed * 64 + g)));
    const auto values = narrowed<T>(random_values<float>(count, 2 * (seed * 64 + g) + 1));
    std::copy(keys.begin(), keys.end(), caches.keys.begin() + offset);
    std::copy(values.begin(), values.end(), caches.values.begin() + offset);
  }
}

inline int64_t splits_of(const std::vector<PassSequence>& sequences) {
  int64_t splits = 1;
  for (const PassSequence& s : sequences) {
    const int64_t length = s.base + s.pending + s.tokens;
    splits = std::max(splits, (length + kAttentionSplit - 1) / kAttentionSplit);
  }
  return splits;
}

template <typename T>
PassAttentionParams<T> params_of(const Shape& shape, const std::vector<PassSequence>& sequences,
                                 int64_t capacity) {
  PassAttentionParams<T> p;
  p.n_sequences = static_cast<int64_t>(sequences.size());
  for (const PassSequence& s : sequences) p.max_tokens = std::max<int64_t>(p.max_tokens, s.tokens);
  p.max_tokens = std::max<int64_t>(p.max_tokens, 1);
  p.splits = splits_of(sequences);
  p.heads = shape.heads;
  p.kv_heads = shape.kv_heads;
  p.head_dim = shape.head_dim;
  p.scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
  p.capacity = capacity;
  return p;
}

// A model's layer on the device: caches, angles and scratch stay there from pass to pass.
template <typename T>
class Layer {
 public:
  Layer(const Shape& shape, const Caches<T>& caches, int64_t capacity)
      : shape_(shape),
        capacity_(capacity),
        keys_(on_device(caches.keys)),
        values_(on_device(caches.values)) {
    const Angles angles(shape.head_dim);
    cos_ = on_device(angles.cos);
    sin_ = on_device(angles.sin);
  }

  // qkv: [tokens, qkv_width]; returns y: [tokens, y_width]. splits: of the pass, when not 0.
  std::vector<T> pass(const std::vector<PassSequence>& sequences, const std::vector<T>& qkv,
                      int64_t splits = 0, bool prefetch = false, bool streams = false) {
    PassAttentionParams<T> p = params_of<T>(shape_, sequences, capacity_);
    if (splits != 0) p.splits = splits;
    p.streams = streams;
    const auto tokens = static_cast<int64_t>(qkv.size()) / shape_.qkv_width();
    const DeviceMemory on_device_sequences = on_device(sequences), on_device_qkv = on_device(qkv);
    const int64_t scratch_bytes =
        streams ? pass_attention_stream_bytes(tokens, p.heads, p.head_dim)
                : pass_attention_scratch_bytes(tokens, p.heads, p.head_dim, p.splits);
    // Bytes of which every fp32 and bf16 number is a NaN.
    const DeviceMemory scratch = on_device(std::vector<uint8_t>(scratch_bytes, 0xff));
    const DeviceMemory counters(4 * pass_attention_counters(p.n_sequences, p.kv_heads, p.splits));
    const DeviceMemory y = on_device(
        std::vector<uint8_t>(tokens * shape_.y_width() * static_cast<int64_t>(sizeof(T)), 0xff));
    p.sequences = on_device_sequences.as<PassSequence>();
    p.qkv = on_device_qkv.as<T>();
    p.cos = cos_.as<float>();
    p.sin = sin_.as<float>();
    p.keys = keys_.as<T>();
    p.values = values_.as<T>();
    p.parts = scratch.as<float>();
    p.counters = counters.as<int32_t>();
    p.y = y.as<T>();
    Prefetch next;
    if (prefetch) next = {cos_.as<void>(), cos_.bytes()};
    const CudaStream stream = create_cuda_stream();
    pass_attention_cuda(p, next, stream);
    synchronise(stream);
    destroy_cuda_stream(stream);
    const std::vector<int32_t> left = on_host<int32_t>(counters);
    EXPECT_TRUE(std::all_of(left.begin(), left.end(), [](int32_t n) { return n == 0; }));
    return on_host<T>(y);
  }

  Caches<T> caches() const { return {on_host<T>(keys_), on_host<T>(values_)}; }

 private:
  Shape shape_;
  int64_t capacity_;
  DeviceMemory keys_, values_, cos_, sin_;
};

template <typename T>
std::vector<T> random_qkv(const Shape& shape, int64_t tokens, uint64_t seed) {
  return narrowed<T>(random_values<float>(tokens * shape.qkv_width(), seed));
}

}  // namespace mambify::kernels::attention_testing
