#include "cuda/device_values.h"
#include "kernels/rms_norm/params.h"

namespace mambify::kernels {
namespace {

using namespace mambify::testing;

template <typename T>
using CudaRmsNorm = CudaKernelTest<T>;
TYPED_TEST_SUITE(CudaRmsNorm, DeviceTypes);

// x and z are column slices of wider rows.
template <typename T>
struct Problem {
  int64_t rows, channels, group_size, gap;
  bool gated;
  int64_t stride = channels + gap;
  Input<T> x = Input<T>::random(rows * stride, 1);
  Input<T> z = Input<T>::random(rows * stride, 2);
  Input<T> weight = Input<T>::random(channels, 3, 0.3, 1);
  Input<T> dy = Input<T>::random(rows * channels, 4);
};

template <typename T>
struct Result {
  explicit Result(const Problem<T>& q)
      : y(q.rows * q.channels),
        dx(q.rows * q.channels),
        dz(q.gated ? q.rows * q.channels : 0),
        inverse_rms(q.rows * q.channels / q.group_size),
        dweight(q.channels) {}
  Output<T> y, dx, dz;
  Output<float> inverse_rms, dweight;
};

template <typename T>
Result<T> run(const Problem<T>& q) {
  Result<T> r(q);
  const auto set = [&](auto& p, const auto& x, const auto& z, const auto& weight) {
    p.rows = q.rows;
    p.channels = q.channels;
    p.group_size = q.group_size;
    p.eps = 1e-5f;
    p.x = x.data();
    p.z = q.gated ? z.data() : nullptr;
    p.x_stride = p.z_stride = q.stride;
    p.weight = weight.data();
  };
  RmsNormBackwardParams<T> b;
  set(b.forward, q.x.device, q.z.device, q.weight.device);
  b.forward.y = r.y.device.data();
  b.forward.inverse_rms = r.inverse_rms.device.data();
  b.dy = q.dy.device.data();
  b.dx = r.dx.device.data();
  b.dz = r.dz.device.data();
  b.dweight = r.dweight.device.data();
  const auto scratch = DeviceArray<char>::poisoned(
      rms_norm_backward_scratch_bytes(q.rows, q.channels, q.group_size));
  rms_norm_forward_cuda(b.forward, nullptr);
  rms_norm_backward_cuda(b, scratch.data(), nullptr);

  RmsNormBackwardParams<double> e;
  set(e.forward, q.x.exact, q.z.exact, q.weight.exact);
  e.forward.y = r.y.exact.data();
  e.forward.inverse_rms = r.inverse_rms.exact.data();
  e.dy = q.dy.exact.data();
  e.dx = r.dx.exact.data();
  e.dz = r.dz.exact.data();
  e.dweight = r.dweight.exact.data();
  rms_norm_forward_reference(e.forward);
  rms_norm_backward_reference(e);
  return r;
}

struct Shape {
  int64_t channels, group_size;
};
// A group for each number of threads, and widths that fill no vector.
constexpr Shape kShapes[] = {{3, 3},     {30, 15},    {64, 64},     {576, 64},
                             {576, 576}, {1024, 128}, {2560, 2560}, {4104, 4104}};

TYPED_TEST(CudaRmsNorm, MatchesItsDefinition) {
  for (const int64_t rows : kLengths) {
    for (const Shape& shape : kShapes) {
      for (const bool gated : {false, true}) {
        for (const int64_t gap : {3, 64}) {
          SCOPED_TRACE(::testing::Message() << rows << " rows of " << shape.channels << " in "
                                            << shape.group_size << ", gated " << gated);
          const auto r =
              run(Problem<TypeParam>{rows, shape.channels, shape.group_size, gap, gated});
          const Tolerance limit = cuda_tolerance<TypeParam>(), sums = cuda_sum_tolerance();
          EXPECT_LT(r.y.error(), limit.output);
          EXPECT_LT(r.inverse_rms.error(), sums.output);
          EXPECT_LT(r.dx.error(), limit.gradient);
          EXPECT_LT(r.dz.error(), limit.gradient);
          EXPECT_LT(r.dweight.error(), sums.gradient);
        }
      }
    }
  }
}

TYPED_TEST(CudaRmsNorm, HasTheSameBitsEachTime) {
  const Problem<TypeParam> q{5000, 576, 64, 64, true};
  const auto first = run(q), second = run(q);
  EXPECT_EQ(first.dweight.bytes(), second.dweight.bytes());
  EXPECT_EQ(first.dz.bytes(), second.dz.bytes());
}

}  // namespace
}  // namespace mambify::kernels
