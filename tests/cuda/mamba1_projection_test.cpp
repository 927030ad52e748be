// A Mamba-1 step that projects dt by itself, of x that was convolved before, has the bits of the
// product's kernel and a step behind it, and of one that convolves: outputs, states, and what it
// leaves in the ring.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "device_values.h"
#include "kernels/multi_step/params.h"
#include "kernels/pass_linear/params.h"

namespace mambify::kernels {
namespace {

using testing::on_device;
using testing::on_host;
using testing::random_values;

constexpr int32_t kSlots = 40, kRows = 5;
constexpr int64_t kStates = 16;

struct Shape {
  int64_t d_inner, rank;
};
constexpr Shape kShapes[] = {{5120, 160}, {1536, 48}, {72, 5}, {200, 256}};

DeviceMemory values(int64_t count, uint64_t seed, double scale = 1) {
  return on_device(narrowed<Bf16>(random_values<float>(count, seed, scale)));
}
DeviceMemory constants(int64_t count, uint64_t seed, double mean = 0) {
  return on_device(random_values<float>(count, seed, 1, mean));
}

class Layer {
 public:
  explicit Layer(const Shape& shape) : shape_(shape) {
    const int64_t places = kRows * kSlots;
    std::vector<float> decays = random_values<float>(shape.d_inner * kStates, 5);
    for (float& a : decays) a = -std::exp(a);
    A_ = on_device(decays);
    x_ = values(places * shape.d_inner, 1);
    z_ = values(places * shape.d_inner, 2);
    B_ = values(places * kStates, 3);
    C_ = values(places * kStates, 4);
    low_ = values(places * low_stride(), 6);
    const int64_t width = padded(shape.rank);
    std::vector<Bf16> weight =
        narrowed<Bf16>(random_values<float>(shape.d_inner * width, 7, 1 / std::sqrt(shape.rank)));
    for (int64_t i = 0; i < shape.d_inner * width; ++i) {
      if (i % width >= shape.rank) weight[i] = {};
    }
    weight_ = on_device(weight);
    filter_ = values(shape.d_inner * 4, 8, 0.5);
    bias_ = values(shape.d_inner, 9);
    dt_bias_ = constants(shape.d_inner, 10, -2);
    D_ = constants(shape.d_inner, 11);
  }

  struct Result {
    std::vector<Bf16> y, dt;
    std::vector<float> state;
  };
  // By one kernel, or by two; x convolved before, or by the step.
  enum class By { one, two, two_convolving };
  Result run(const std::vector<PassSequence>& sequences, By by) const {
    std::vector<PassToken> tokens;
    int32_t longest = 0;
    for (const PassSequence& s : sequences) {
      longest = std::max(longest, s.tokens);
      for (int32_t i = 0; i < s.tokens; ++i) {
        const int32_t position = s.base + s.pending + i;
        tokens.push_back({.position = position, .place = s.row * kSlots + position % kSlots});
      }
    }
    const auto count = static_cast<int64_t>(tokens.size());
    const DeviceMemory device_tokens = on_device(tokens), device_sequences = on_device(sequences);
    const DeviceMemory dt = values(kRows * kSlots * shape_.d_inner, 12),
                       state = constants(kRows * shape_.d_inner * kStates, 13),
                       y = values(count * shape_.d_inner, 14),
                       convolved = values(kRows * kSlots * shape_.d_inner, 15);
    const CudaStream stream = create_cuda_stream();
    convolve(sequences, convolved, stream);
    Mamba1StepParams<Bf16> p{.sequences = device_sequences.as<PassSequence>(),
                             .n_sequences = static_cast<int64_t>(sequences.size()),
                             .ring_slots = kSlots,
                             .d_inner = shape_.d_inner,
                             .d_xb = shape_.d_inner,
                             .d_state = kStates,
                             .x = x_.as<Bf16>(),
                             .x_stride = shape_.d_inner,
                             .z = z_.as<Bf16>(),
                             .z_stride = shape_.d_inner,
                             .dt = dt.as<Bf16>(),
                             .dt_stride = shape_.d_inner,
                             .B = B_.as<Bf16>(),
                             .b_stride = kStates,
                             .C = C_.as<Bf16>(),
                             .c_stride = kStates,
                             .conv_weight = filter_.as<Bf16>(),
                             .conv_bias = bias_.as<Bf16>(),
                             .convolved = convolved.as<Bf16>(),
                             .convolved_stride = shape_.d_inner,
                             .dt_bias = dt_bias_.as<float>(),
                             .A = A_.as<float>(),
                             .D = D_.as<float>(),
                             .state = state.as<float>(),
                             .y = y.as<Bf16>(),
                             .low = low_.as<Bf16>(),
                             .low_stride = low_stride(),
                             .rank = shape_.rank};
    EXPECT_TRUE(mamba1_step_projects_dt(p, longest));
    if (by == By::two_convolving) {
      p.convolved = nullptr;
      EXPECT_FALSE(mamba1_step_projects_dt(p, longest));
    }
    if (by == By::one) {
      p.dt_weight = weight_.as<Bf16>();
    } else if (count > 0) {
      pass_linear_cuda<Bf16>({.rows = count,
                              .inputs = shape_.rank,
                              .outputs = shape_.d_inner,
                              .weight = weight_.as<Bf16>(),
                              .x = p.low,
                              .x_stride = p.low_stride,
                              .tokens = device_tokens.as<PassToken>(),
                              .gather = true,
                              .scatter = true,
                              .y = p.dt,
                              .y_stride = p.dt_stride},
                             stream);
    }
    mamba1_step_cuda(p, {weight_.as<void>(), weight_.bytes()}, stream);
    synchronise(stream);
    destroy_cuda_stream(stream);
    return {on_host<Bf16>(y), on_host<Bf16>(dt), on_host<float>(state)};
  }

 private:
  // Pending tokens, too.
  void convolve(std::vector<PassSequence> sequences, const DeviceMemory& y,
                CudaStream stream) const {
    for (PassSequence& s : sequences) s.tokens += std::exchange(s.pending, 0);
    const DeviceMemory device_sequences = on_device(sequences);
    conv_step_cuda<Bf16>({.sequences = device_sequences.as<PassSequence>(),
                          .n_sequences = static_cast<int64_t>(sequences.size()),
                          .ring_slots = kSlots,
                          .channels = shape_.d_inner,
                          .x = x_.as<Bf16>(),
                          .x_stride = shape_.d_inner,
                          .weight = filter_.as<Bf16>(),
                          .bias = bias_.as<Bf16>(),
                          .y = y.as<Bf16>(),
                          .y_stride = shape_.d_inner},
                         {}, stream);
    synchronise(stream);
  }
  int64_t low_stride() const { return padded(shape_.rank) + kLinearPad; }

  Shape shape_;
  DeviceMemory x_, z_, B_, C_, low_, weight_, filter_, bias_, dt_bias_, A_, D_;
};

class Mamba1Projection : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  }
};

TEST_F(Mamba1Projection, HasTheBitsOfAProductAndAStep) {
  for (const Shape& shape : kShapes) {
    const Layer layer(shape);
    const auto expect_same = [&](const std::vector<PassSequence>& sequences) {
      const Layer::Result expected = layer.run(sequences, Layer::By::two_convolving);
      for (const Layer::By by : {Layer::By::one, Layer::By::two}) {
        const Layer::Result actual = layer.run(sequences, by);
        EXPECT_TRUE(testing::same_bits(expected.y, actual.y));
        EXPECT_TRUE(testing::same_bits(expected.dt, actual.dt));
        EXPECT_TRUE(testing::same_bits(expected.state, actual.state));
      }
    };
    for (int32_t tokens = 1; tokens <= 8; ++tokens) {
      for (const int32_t pending : {0, 1, 5, 30}) {
        SCOPED_TRACE(std::to_string(shape.d_inner) + " channels, " + std::to_string(tokens) +
                     " tokens behind " + std::to_string(pending));
        expect_same({{.row = 3,
                      .tokens = tokens,
                      .base = 37 - tokens,
                      .pending = pending,
                      .commit = pending + tokens / 2}});
      }
    }
    SCOPED_TRACE(std::to_string(shape.d_inner) + " channels, several sequences");
    expect_same({{.row = 2, .first = 0, .tokens = 5, .base = 0, .pending = 0, .commit = 1},
                 {},
                 {.row = 4, .first = 5, .tokens = 0, .base = 70, .pending = 3, .commit = 3},
                 {.row = 0, .first = 5, .tokens = 8, .base = 2, .pending = 1, .commit = 4}});
  }
}

// What is beyond it is told to the caller, who launches the product's kernel.
TEST_F(Mamba1Projection, IsForFewTokensOfFewSequences) {
  const DeviceMemory convolved(2);  // not read here
  const Mamba1StepParams<Bf16> p{.n_sequences = 1,
                                 .d_inner = 1536,
                                 .d_xb = 1536,
                                 .d_state = kStates,
                                 .convolved = convolved.as<Bf16>(),
                                 .rank = 48};
  EXPECT_TRUE(mamba1_step_projects_dt(p, /*longest=*/8));
  EXPECT_FALSE(mamba1_step_projects_dt(p, /*longest=*/9));
  Mamba1StepParams<Bf16> other = p;
  other.n_sequences = 64;
  EXPECT_FALSE(mamba1_step_projects_dt(other, /*longest=*/1));
  other = p;
  other.d_state = 64;
  EXPECT_FALSE(mamba1_step_projects_dt(other, /*longest=*/1));
  other = p;
  other.convolved = nullptr;
  EXPECT_FALSE(mamba1_step_projects_dt(other, /*longest=*/1));
  EXPECT_FALSE(mamba1_step_projects_dt(Mamba1StepParams<float>{.n_sequences = 1,
                                                               .d_inner = 1536,
                                                               .d_xb = 1536,
                                                               .d_state = kStates,
                                                               .convolved = convolved.as<float>(),
                                                               .rank = 48},
                                       /*longest=*/1));
}

}  // namespace
}  // namespace mambify::kernels
