// The linear map of a decoding pass on a CUDA device: against sums in double, and row against row.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "device_values.h"
#include "kernels/multi_step/params.h"
#include "kernels/pass_linear/params.h"

namespace mambify::kernels {
namespace {

using testing::on_device;
using testing::on_host;
using testing::random_values;

template <typename T>
T stored(float x) {
  return narrowed<T>({x}).front();
}

struct Shape {
  int64_t inputs, outputs;
};
// Among them outputs that are no whole tile, inputs of which a thread stages several vectors, and,
// on devices of about 132 multiprocessors, units of a tile and half of another or a part of it.
constexpr Shape kShapes[] = {{16, 24},    {36, 40},     {64, 16},     {264, 7},   {576, 960},
                             {1536, 576}, {160, 5120},  {5120, 192},  {8200, 24}, {768, 1003},
                             {768, 3072}, {1024, 2570}, {2560, 10240}};

enum class Around { nothing, norm, residual, gate };

template <typename T>
class Linear {
 public:
  static constexpr int64_t kRows = 1000;

  Linear(Shape shape, Around around, int64_t rows = kRows)
      : shape_(shape),
        around_(around),
        width_(padded(shape.inputs)),
        matrices_(around == Around::gate ? 2 : 1) {
    const auto values = random_values<float>(matrices_ * shape.outputs * shape.inputs, 1,
                                             1 / std::sqrt(static_cast<double>(shape.inputs)));
    weight_.resize(matrices_ * shape.outputs * width_, stored<T>(0.0f));
    for (int64_t o = 0; o < matrices_ * shape.outputs; ++o) {
      for (int64_t k = 0; k < shape.inputs; ++k) {
        weight_[o * width_ + k] = stored<T>(values[o * shape.inputs + k]);
      }
    }
    x_ = narrowed<T>(random_values<float>(rows * width_, 2));
    norm_ = narrowed<T>(random_values<float>(shape.inputs, 3));
    residual_ = narrowed<T>(random_values<float>(rows * shape.outputs, 4));
    device_weight_ = on_device(weight_);
    device_x_ = on_device(x_);
    device_norm_ = on_device(norm_);
    device_residual_ = on_device(residual_);
  }

  // Rows [first, first + rows) of y.
  std::vector<T> run(int64_t first, int64_t rows) {
    DeviceMemory y(rows * shape_.outputs * static_cast<int64_t>(sizeof(T)));
    const std::vector<unsigned char> nan(static_cast<size_t>(y.bytes()), 0xff);
    y.write(nan.data(), y.bytes());
    const CudaStream stream = create_cuda_stream();
    pass_linear_cuda<T>(
        {.rows = rows,
         .inputs = shape_.inputs,
         .outputs = shape_.outputs,
         .weight = device_weight_.as<T>(),
         .gated = around_ == Around::gate,
         .norm = around_ == Around::norm ? device_norm_.as<T>() : nullptr,
         .norm_eps = 1e-5f,
         .x = device_x_.as<T>() + first * width_,
         .x_stride = width_,
         .residual = around_ == Around::residual ? device_residual_.as<T>() + first * shape_.outputs
                                                 : nullptr,
         .y = y.as<T>(),
         .y_stride = shape_.outputs},
        stream);
    synchronise(stream);
    destroy_cuda_stream(stream);
    std::vector<T> result(static_cast<size_t>(rows * shape_.outputs));
    y.read(result.data(), y.bytes());
    return result;
  }

  // An element of y, in double.
  double expected(int64_t row, int64_t output) const {
    double square = 0;
    for (int64_t k = 0; k < shape_.inputs; ++k) square += std::pow(x(row, k), 2);
    const double inverse = 1 / std::sqrt(square / static_cast<double>(shape_.inputs) + 1e-5);
    const auto product = [&](int64_t o) {
      double sum = 0;
      for (int64_t k = 0; k < shape_.inputs; ++k) {
        double u = x(row, k);
        if (around_ == Around::norm) {
          u = to_float(stored<T>(static_cast<float>(u * inverse * to_float(norm_[k]))));
        }
        sum += u * to_float(weight_[o * width_ + k]);
      }
      return sum;
    };
    const double y = product(output);
    if (around_ == Around::residual) {
      return y + to_float(residual_[row * shape_.outputs + output]);
    }
    if (around_ == Around::gate) return y / (1 + std::exp(-y)) * product(shape_.outputs + output);
    return y;
  }

  bool takes(int64_t rows) const {
    return around_ != Around::norm || pass_linear_takes_norm<T>(rows, shape_.inputs);
  }

 private:
  double x(int64_t row, int64_t k) const { return to_float(x_[row * width_ + k]); }

  Shape shape_;
  Around around_;
  int64_t width_, matrices_;
  std::vector<T> weight_, x_, norm_, residual_;
  DeviceMemory device_weight_, device_x_, device_norm_, device_residual_;
};

template <typename T>
class CudaLinear : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  }
};
using Types = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(CudaLinear, Types);

constexpr Around kAround[] = {Around::nothing, Around::norm, Around::residual, Around::gate};

TYPED_TEST(CudaLinear, MatchesItsDefinition) {
  const double tolerance = sizeof(TypeParam) == 2 ? 1.5e-2 : 2e-5;
  for (const Shape shape : kShapes) {
    for (const Around around : kAround) {
      Linear<TypeParam> linear(shape, around);
      if (!linear.takes(1)) continue;
      const int64_t rows = linear.takes(5) ? 5 : 1;
      const std::vector<TypeParam> y = linear.run(0, rows);
      double error = 0, size = 0;
      for (int64_t i = 0; i < static_cast<int64_t>(y.size()); i += 1 + i / 64) {
        const double expected = linear.expected(i / shape.outputs, i % shape.outputs);
        error += std::pow(to_float(y[i]) - expected, 2);
        size += expected * expected;
      }
      EXPECT_LT(std::sqrt(error / size), tolerance)
          << shape.inputs << " to " << shape.outputs << ", " << static_cast<int>(around);
    }
  }
}

TYPED_TEST(CudaLinear, ARowsBitsDoNotDependOnHowManyThereAre) {
  for (const Shape shape : kShapes) {
    for (const Around around : kAround) {
      Linear<TypeParam> linear(shape, around);
      if (!linear.takes(1)) continue;
      // Rows of a few, from the first on.
      const auto in_pieces = [&](int64_t rows, int64_t piece) {
        std::vector<TypeParam> all;
        for (int64_t row = 0; row < rows; row += piece) {
          const std::vector<TypeParam> y = linear.run(row, std::min(piece, rows - row));
          all.insert(all.end(), y.begin(), y.end());
        }
        return all;
      };
      const auto expect_same = [&](const std::vector<TypeParam>& expected, int64_t rows) {
        if (!linear.takes(rows)) return;
        const std::vector<TypeParam> together = linear.run(0, rows);
        EXPECT_EQ(
            std::memcmp(together.data(), expected.data(), together.size() * sizeof(TypeParam)), 0)
            << shape.inputs << " to " << shape.outputs << ", " << static_cast<int>(around) << ", "
            << rows << " rows";
      };
      const std::vector<TypeParam> alone = in_pieces(70, 1);
      for (const int64_t rows : {2, 3, 5, 8, 9, 16, 17, 32, 33, 64, 70}) expect_same(alone, rows);
      if (!linear.takes(linear.kRows)) continue;
      const std::vector<TypeParam> few = in_pieces(linear.kRows, 64);
      for (const int64_t rows : {65, 128, 200, 1000}) expect_same(few, rows);
    }
  }
}

// Tiles of other sizes, for thousands of rows.
TYPED_TEST(CudaLinear, ARowsBitsDoNotDependOnTheTile) {
  if (sizeof(TypeParam) != 2) GTEST_SKIP() << "fp32 has no tiles";
  constexpr int64_t kMost = 4000, kPiece = 500;
  for (const Shape shape : {Shape{1536, 576}, Shape{576, 960}, Shape{576, 1536}}) {
    for (const Around around : {Around::residual, Around::gate}) {
      Linear<TypeParam> linear(shape, around, kMost);
      std::vector<TypeParam> apart;
      for (int64_t row = 0; row < kMost; row += kPiece) {
        const std::vector<TypeParam> y = linear.run(row, kPiece);
        apart.insert(apart.end(), y.begin(), y.end());
      }
      for (const int64_t rows : {1500, 3000, 4000}) {
        const std::vector<TypeParam> together = linear.run(0, rows);
        EXPECT_EQ(std::memcmp(together.data(), apart.data(), together.size() * sizeof(TypeParam)),
                  0)
            << shape.inputs << " to " << shape.outputs << ", " << static_cast<int>(around) << ", "
            << rows << " rows";
      }
    }
  }
}

// However many rows there are, x comes from a ring's places and y goes there.
TYPED_TEST(CudaLinear, GathersAndScatters) {
  constexpr int64_t kInputs = 392, kOutputs = 50, kRows = 300, kPlaces = 500, kStride = 400;
  const auto values = [](int64_t count, uint64_t seed) {
    return on_device(narrowed<TypeParam>(random_values<float>(count, seed)));
  };
  const DeviceMemory weight = values(kOutputs * kInputs, 1), x = values(kPlaces * kStride, 2),
                     bias = values(kOutputs, 3), scales = on_device(random_values<float>(kRows, 4));
  std::vector<PassToken> tokens(kRows);
  for (int32_t r = 0; r < kRows; ++r) {
    tokens[r].place = static_cast<int32_t>((r * int64_t{7} + 3) % kPlaces);
  }
  const DeviceMemory device_tokens = on_device(tokens);
  const CudaStream stream = create_cuda_stream();
  const auto in_pieces = [&](int64_t piece) {
    DeviceMemory y(kPlaces * kOutputs * sizeof(TypeParam));
    for (int64_t row = 0; row < kRows; row += piece) {
      pass_linear_cuda<TypeParam>({.rows = std::min(piece, kRows - row),
                                   .inputs = kInputs,
                                   .outputs = kOutputs,
                                   .weight = weight.as<TypeParam>(),
                                   .scales = scales.as<float>() + row,
                                   .x = x.as<TypeParam>(),
                                   .x_stride = kStride,
                                   .bias = bias.as<TypeParam>(),
                                   .tokens = device_tokens.as<PassToken>() + row,
                                   .gather = true,
                                   .scatter = true,
                                   .y = y.as<TypeParam>(),
                                   .y_stride = kOutputs},
                                  stream);
    }
    synchronise(stream);
    std::vector<char> bytes(static_cast<size_t>(y.bytes()));
    y.read(bytes.data(), y.bytes());
    return bytes;
  };
  const std::vector<char> together = in_pieces(kRows);
  for (const int64_t piece : {1, 5, 8, 16}) EXPECT_TRUE(in_pieces(piece) == together) << piece;
  destroy_cuda_stream(stream);
}

// Outputs that a product convolves are what the kernel for the convolution makes of them: of the
// first tokens of a sequence, of later ones, whose inputs are in a ring, and of several sequences
// and tokens that fill a bucket.
TEST(CudaLinearConvolution, IsThatOfItsOwnKernel) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  constexpr int32_t kSlots = 12, kRows = 3;
  constexpr int64_t kPlaces = kRows * kSlots + 1;
  struct Sizes {
    int64_t inputs, outputs, channels;
  };
  const std::vector<std::vector<PassSequence>> passes = {
      {{.tokens = 1}},
      {{.row = 1, .tokens = 1, .base = 11}},
      {{.row = 2, .tokens = 1, .base = 24, .pending = 2}},
      {{.tokens = 5, .base = 1}},
      {{.row = 1, .tokens = 8, .base = 17}},
      {{.row = 1, .tokens = 2, .base = 10},
       {.row = 0, .first = 2, .tokens = 1, .base = 11},
       {.row = 2, .first = 3, .tokens = 4, .base = 22, .pending = 1}}};
  const CudaStream stream = create_cuda_stream();
  for (const Sizes& sizes :
       {Sizes{768, 3072, 1536}, Sizes{776, 250, 121}, Sizes{2560, 1040, 520}}) {
    const auto values = [](int64_t count, uint64_t seed) {
      return on_device(narrowed<Bf16>(random_values<float>(count, seed)));
    };
    const int64_t stride = padded(sizes.outputs), conv_stride = padded(sizes.channels);
    const DeviceMemory weight = values(sizes.outputs * sizes.inputs, 1),
                       filter = values(sizes.channels * 4, 3), bias = values(sizes.channels, 4),
                       norm = values(sizes.inputs, 5), x = values(8 * sizes.inputs, 6);
    for (const std::vector<PassSequence>& sequences : passes) {
      std::vector<PassToken> tokens;
      for (const PassSequence& s : sequences) {
        for (int32_t t = 0; t < s.tokens; ++t) {
          const int32_t position = s.base + s.pending + t;
          tokens.push_back({.position = position, .place = s.row * kSlots + position % kSlots});
        }
      }
      if (sequences.size() > 1) tokens.push_back({.position = 0, .place = kRows * kSlots});
      const auto rows = static_cast<int64_t>(tokens.size());
      SCOPED_TRACE(std::to_string(sizes.inputs) + " inputs, " + std::to_string(rows) + " rows");
      ASSERT_TRUE(pass_linear_convolves<Bf16>(rows, sizes.inputs));
      const DeviceMemory device_tokens = on_device(tokens), device_sequences = on_device(sequences);
      struct Rings {
        std::vector<Bf16> y, convolved;
      };
      const auto run = [&](bool apart) {
        const DeviceMemory y = values(kPlaces * stride, 2),
                           convolved = values(kPlaces * conv_stride, 7);
        PassLinearParams<Bf16> p{.rows = rows,
                                 .inputs = sizes.inputs,
                                 .outputs = sizes.outputs,
                                 .weight = weight.as<Bf16>(),
                                 .norm = norm.as<Bf16>(),
                                 .norm_eps = 1e-5f,
                                 .x = x.as<Bf16>(),
                                 .x_stride = sizes.inputs,
                                 .tokens = device_tokens.as<PassToken>(),
                                 .scatter = true,
                                 .y = y.as<Bf16>(),
                                 .y_stride = stride};
        if (!apart) {
          p.conv = {.channels = sizes.channels,
                    .weight = filter.as<Bf16>(),
                    .bias = bias.as<Bf16>(),
                    .ring_slots = kSlots,
                    .y = convolved.as<Bf16>(),
                    .y_stride = conv_stride};
        }
        pass_linear_cuda<Bf16>(p, stream);
        if (apart) {
          conv_step_cuda<Bf16>({.sequences = device_sequences.as<PassSequence>(),
                                .n_sequences = static_cast<int64_t>(sequences.size()),
                                .ring_slots = kSlots,
                                .channels = sizes.channels,
                                .x = y.as<Bf16>(),
                                .x_stride = stride,
                                .weight = filter.as<Bf16>(),
                                .bias = bias.as<Bf16>(),
                                .y = convolved.as<Bf16>(),
                                .y_stride = conv_stride},
                               {}, stream);
        }
        synchronise(stream);
        Rings rings{on_host<Bf16>(y), on_host<Bf16>(convolved)};
        rings.convolved.resize(kRows * kSlots * conv_stride);  // not what fills a bucket
        return rings;
      };
      const Rings together = run(/*apart=*/false), apart = run(/*apart=*/true);
      EXPECT_TRUE(testing::same_bits(together.y, apart.y));
      EXPECT_TRUE(testing::same_bits(together.convolved, apart.convolved));
    }
  }
  destroy_cuda_stream(stream);
}

}  // namespace
}  // namespace mambify::kernels
