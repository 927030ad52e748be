// The multi-step kernels against their definition, over passes as an engine makes them, and against
// themselves: no bit depends on how tokens are divided into passes, on drafts that were refused, or
// on what else is in a pass.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/multi_step/params.h"
#include "numerics.h"
#include "tolerances.h"

namespace mambify::kernels {
namespace {

constexpr int64_t kSlots = 96;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <typename T>
T from_float(float x) {
  if constexpr (std::is_same_v<T, Bf16>) {
    return {static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16)};
  } else {
    return x;
  }
}

template <typename T>
const char* dtype() {
  return std::is_same_v<T, Bf16> ? "bf16" : "fp32";
}

template <typename T>
std::vector<float> floats(const std::vector<T>& values) {
  std::vector<float> result;
  for (const T value : values) result.push_back(to_float(value));
  return result;
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

std::vector<float> decays(int64_t count) {
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
    return values;
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
  Layer<T> layer = start_layer<T>(rows, /*state_size=*/0, channels, {channels}, channels, d_conv);
  layer.run = [channels, d_conv](Layer<T>& l, const PassSequence* sequences, int64_t count, T* y,
                                 bool device) {
    ConvStepParams<T> p;
    set_common(p, sequences, count);
    p.channels = channels;
    p.d_conv = d_conv;
    p.x = l.rings[0].mirror.data(device);
    p.x_stride = l.rings[0].stride;
    p.weight = l.weights[0].data(device);
    p.bias = l.weights[1].data(device);
    p.y = y;
    if (!device) return conv_step_reference(p);
    conv_step_cuda(p, {}, nullptr);
  };
  return layer;
}

// The layers that both tests go through: sizes that have a kernel of their own, and tiny or odd
// ones.
template <typename T>
std::vector<std::pair<std::string, MakeLayer<T>>> layers() {
  std::vector<std::pair<std::string, MakeLayer<T>>> all;
  const auto mamba2 = [&](const char* name, const Mamba2Shape& shape) {
    all.emplace_back(name, [=](int64_t rows) { return make_mamba2<T>(shape, rows); });
  };
  const auto mamba1 = [&](const char* name, const Mamba1Shape& shape) {
    all.emplace_back(name, [=](int64_t rows) { return make_mamba1<T>(shape, rows); });
  };
  mamba2("mamba2 tiny", {4, 16, 8, 2, 1, 4});
  mamba2("mamba2 odd, clamped", {3, 23, 19, 3, 1, 1, 3, true, false, 0.05f, 0.4f});
  mamba2("mamba2 tiny, rotary, not activated", {4, 16, 16, 2, 2, 4, 4, false, true});
  mamba2("mamba2 64", {3, 64, 64, 1, 1, 3});
  mamba2("mamba2 64, rotary, narrow convolution", {2, 40, 64, 1, 2, 2, 2, true, true});
  mamba2("mamba2 128", {4, 128, 128, 2, 2, 4});
  mamba2("mamba2 128, rotary, narrow head", {2, 50, 128, 2, 1, 1, 4, true, true});
  // One sequence's heads are divided among more blocks than several sequences' are.
  mamba2("mamba2 128, many heads", {40, 50, 128, 8, 4, 40});
  mamba1("mamba1 tiny", {48, 24, 8, 3, 6});
  mamba1("mamba1 odd", {65, 65, 13, 5, 1, 3});
  mamba1("mamba1 16", {72, 72, 16, 1, 1});
  mamba1("mamba1 16, repeated", {160, 80, 16, 5, 10});
  mamba1("mamba1 64", {256, 128, 64, 2, 4, 2});
  mamba1("mamba1 128", {256, 128, 128, 1, 2});
  mamba1("mamba1 128, odd shares", {15, 15, 128, 5, 3});
  for (const int64_t d_conv : {1, 4}) {
    all.emplace_back("convolution", [=](int64_t rows) { return make_conv<T>(70, d_conv, rows); });
  }
  return all;
}

// Where a sequence is.
struct Place {
  int base = 0, pending = 0;
};

class MultiStep : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  }
  int random(int first, int last) {
    return std::uniform_int_distribution<int>(first, last)(engine_);
  }

  // Passes with several sequences each, of which some are empty, some only replay, some are new.
  template <typename T>
  void compare_with_definition() {
    const double bound = testing::tolerance("cuda", dtype<T>()).output;
    for (const auto& [name, make] : layers<T>()) {
      SCOPED_TRACE(name);
      constexpr int kRows = 4;
      Layer<T> layer = make(kRows);
      std::vector<Place> places(kRows);
      for (int pass = 0; pass < 14; ++pass) {
        SCOPED_TRACE("pass " + std::to_string(pass));
        std::vector<PassSequence> sequences(1);  // the first place stays empty
        int tokens = 0;
        for (int row = kRows - 1; row >= 0; --row) {
          Place& place = places[row];
          if (random(0, 4) == 0) continue;
          const int fresh = pass == 5 && row == 1 ? 64 : random(0, 9);
          for (int i = 0; i < fresh; ++i) {
            layer.feed(row, place.base + place.pending + i, row);
          }
          const int total = place.pending + fresh;
          const int commit = total > 16 ? total - random(0, 8) : random(0, total);
          sequences.push_back({row, tokens, fresh, place.base, place.pending, commit});
          tokens += fresh;
          place.base += commit;
          place.pending = total - commit;
        }
        const std::vector<T> expected = layer.run_on_host(sequences, tokens);
        const std::vector<T> actual = layer.run_on_device(sequences, tokens);
        if (tokens > 0) {
          ASSERT_LT(testing::max_relative_error(floats(actual), floats(expected)), bound);
        }
        // Rows that no pass has committed yet are as they were, NaN.
        const std::vector<float> state = layer.state.download();
        for (int row = 0; row < kRows && layer.state_size > 0; ++row) {
          const auto begin = row * layer.state_size;
          const std::span<const float> on_device(state.data() + begin, layer.state_size);
          const std::span<const float> on_host(layer.state.host.data() + begin, layer.state_size);
          if (places[row].base == 0) {
            ASSERT_TRUE(std::isnan(on_device.front()) && std::isnan(on_device.back()));
          } else {
            ASSERT_LT(testing::max_relative_error(on_device, on_host), bound) << "row " << row;
          }
        }
      }
    }
  }

  // The same 40 tokens one at a time, alone, and in passes of any length with drafts that are
  // refused, in another row beside other sequences.
  template <typename T>
  void compare_divisions() {
    constexpr int kTokens = 40, kStream = 77, kRows = 6;
    for (const auto& [name, make] : layers<T>()) {
      SCOPED_TRACE(name);
      Layer<T> alone = make(1);
      std::vector<T> expected;
      for (int t = 0; t < kTokens; ++t) {
        alone.feed(0, t, kStream);
        // The token before this one is pending.
        const int pending = t > 0;
        const std::vector<T> y =
            alone.run_on_device({{0, 0, 1, t - pending, pending, pending}}, /*tokens=*/1);
        expected.insert(expected.end(), y.begin(), y.end());
      }
      alone.run_on_device({{0, 0, 0, kTokens - 1, 1, 1}}, /*tokens=*/0);
      const std::vector<float> expected_state = alone.state.download();

      for (int trial = 0; trial < 4; ++trial) {
        SCOPED_TRACE("trial " + std::to_string(trial));
        const int row = random(0, kRows - 1);
        Layer<T> layer = make(kRows);
        std::vector<Place> places(kRows);
        std::vector<T> y;
        while (places[row].base + places[row].pending < kTokens) {
          std::vector<PassSequence> sequences;
          int tokens = 0, own_first = 0, own_accepted = 0;
          for (int r = 0; r < kRows; ++r) {
            Place& place = places[r];
            if (r != row && random(0, 3) == 0) {
              sequences.push_back({});
              continue;
            }
            const int next = place.base + place.pending;
            const int longest = trial == 3 ? 40 : 9;
            const int accepted = std::min(random(1, longest), r == row ? kTokens - next : 64);
            const int refused = random(0, 5);
            for (int i = 0; i < accepted + refused; ++i) {
              const int stream = (r == row ? kStream : r) + (i < accepted ? 0 : 500);
              layer.feed(r, next + i, stream);
            }
            const int certain = place.pending + accepted;
            const int commit = random(std::max(0, certain - 8), certain);
            sequences.push_back({r, tokens, accepted + refused, place.base, place.pending, commit});
            if (r == row) own_first = tokens, own_accepted = accepted;
            tokens += accepted + refused;
            place.base += commit;
            place.pending = certain - commit;
          }
          const std::vector<T> all = layer.run_on_device(sequences, tokens);
          y.insert(y.end(), all.begin() + own_first * layer.y_width,
                   all.begin() + (own_first + own_accepted) * layer.y_width);
        }
        const Place place = places[row];
        layer.run_on_device({{}, {row, 0, 0, place.base, place.pending, place.pending}},
                            /*tokens=*/0);
        ASSERT_EQ(y.size(), expected.size());
        EXPECT_EQ(std::memcmp(y.data(), expected.data(), y.size() * sizeof(T)), 0);
        const std::vector<float> state = layer.state.download();
        EXPECT_EQ(std::memcmp(state.data() + row * layer.state_size, expected_state.data(),
                              layer.state_size * sizeof(float)),
                  0);
      }
    }
  }

 private:
  std::mt19937 engine_{5};
};

TEST_F(MultiStep, AgreesWithItsDefinitionInFp32) { compare_with_definition<float>(); }
TEST_F(MultiStep, AgreesWithItsDefinitionInBf16) { compare_with_definition<Bf16>(); }
TEST_F(MultiStep, HasTheSameBitsHoweverTokensAreDividedInFp32) { compare_divisions<float>(); }
TEST_F(MultiStep, HasTheSameBitsHoweverTokensAreDividedInBf16) { compare_divisions<Bf16>(); }

TEST_F(MultiStep, RefusesSizesBeyondItsLimits) {
  EXPECT_ANY_THROW(make_mamba2<float>({1, 16, 129, 1, 1, 1}, 1).run_on_device({{}}, 0));
  EXPECT_ANY_THROW(make_mamba2<float>({1, 129, 16, 1, 1, 1}, 1).run_on_device({{}}, 0));
  EXPECT_ANY_THROW(make_mamba1<float>({160, 160, 160, 1, 1}, 1).run_on_device({{}}, 0));
  EXPECT_ANY_THROW(make_conv<float>(8, 5, 1).run_on_device({{}}, 0));
}

}  // namespace
}  // namespace mambify::kernels
