#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "device_values.h"
#include "kernels/pass_norm/params.h"

namespace mambify::kernels {
namespace {

using testing::on_device;
using testing::on_host;
using testing::random_values;
using testing::same_bits;

template <typename T>
struct Normed {
  std::vector<T> y;
  std::vector<float> scales;
};

template <typename T>
class PassNormCuda : public ::testing::Test {
 protected:
  static constexpr int64_t kRows = 1500;
  static constexpr float kEps = 1e-5f;

  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
    use_cuda_device(0);
  }

  void make_rows(int64_t width) {
    width_ = width;
    x_ = narrowed<T>(random_values<float>(kRows * width, 1));
    weight_ = narrowed<T>(random_values<float>(width, 2));
  }

  // Rows [first, first + rows). tokens: null, or where they go.
  Normed<T> run(int64_t first, int64_t rows, const std::vector<PassToken>* tokens = nullptr) const {
    const DeviceMemory x = on_device(x_), weight = on_device(weight_);
    const DeviceMemory y(rows * width_ * static_cast<int64_t>(sizeof(T))), scales(rows * 4);
    const DeviceMemory places = tokens != nullptr ? on_device(*tokens) : DeviceMemory();
    const CudaStream stream = create_cuda_stream();
    pass_norm_cuda<T>({.rows = rows,
                       .width = width_,
                       .eps = kEps,
                       .x = x.template as<T>() + first * width_,
                       .weight = weight.template as<T>(),
                       .tokens = places.template as<PassToken>(),
                       .only_scored = tokens != nullptr,
                       .y = y.template as<T>(),
                       .scales = scales.template as<float>()},
                      {}, stream);
    synchronise(stream);
    destroy_cuda_stream(stream);
    return {on_host<T>(y), on_host<float>(scales)};
  }

  int64_t width_ = 0;
  std::vector<T> x_, weight_;
};

using Types = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(PassNormCuda, Types);

TYPED_TEST(PassNormCuda, ScalesAreThoseOfTheirDefinition) {
  for (const int64_t width : {8, 40, 576, 4096}) {
    this->make_rows(width);
    const std::vector<float> scales = this->run(0, this->kRows).scales;
    for (int64_t row = 0; row < this->kRows; row += 7) {
      double squares = 0;
      for (int64_t k = 0; k < width; ++k) {
        squares += std::pow(to_float(this->x_[row * width + k]), 2);
      }
      const double expected = 1 / std::sqrt(squares / static_cast<double>(width) + this->kEps);
      EXPECT_NEAR(scales[row], expected, 1e-5 * expected) << "width " << width << ", row " << row;
    }
  }
}

TYPED_TEST(PassNormCuda, ARowsBitsDoNotDependOnHowManyThereAre) {
  for (const int64_t width : {8, 40, 576, 1024, 2048, 4096}) {
    SCOPED_TRACE("width " + std::to_string(width));
    this->make_rows(width);
    const Normed<TypeParam> together = this->run(0, this->kRows);
    Normed<TypeParam> apart;
    for (int64_t row = 0; row < this->kRows; row += 100) {
      const Normed<TypeParam> some = this->run(row, 100);
      apart.y.insert(apart.y.end(), some.y.begin(), some.y.end());
      apart.scales.insert(apart.scales.end(), some.scales.begin(), some.scales.end());
    }
    EXPECT_TRUE(same_bits(together.y, apart.y));
    EXPECT_TRUE(same_bits(together.scales, apart.scales));
  }
}

TYPED_TEST(PassNormCuda, OnlyScoredRowsGoToTheirPlaces) {
  this->make_rows(576);
  const Normed<TypeParam> all = this->run(0, this->kRows);
  std::vector<PassToken> tokens(this->kRows);
  int32_t scored = 0;
  for (int64_t row = 0; row < this->kRows; row += 3) tokens[row].scored = scored++;
  const Normed<TypeParam> some = this->run(0, this->kRows, &tokens);
  for (int64_t row = 0; row < this->kRows; row += 3) {
    const int64_t target = tokens[row].scored;
    EXPECT_EQ(some.scales[target], all.scales[row]);
    EXPECT_EQ(std::memcmp(some.y.data() + target * 576, all.y.data() + row * 576,
                          576 * sizeof(TypeParam)),
              0)
        << "row " << row;
  }
}

}  // namespace
}  // namespace mambify::kernels
