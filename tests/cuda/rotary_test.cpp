#include "cuda/device_values.h"
#include "kernels/rotary/params.h"

namespace mambify::kernels {
namespace {

using namespace mambify::testing;

template <typename T>
using CudaRotary = CudaKernelTest<T>;
TYPED_TEST_SUITE(CudaRotary, DeviceTypes);

template <typename T>
void expect_close_to_definition(int64_t tokens, int64_t heads, int64_t width, int64_t gap,
                                bool inverse) {
  const int64_t stride = heads * width + gap;
  const auto x = Input<T>::random(tokens * stride, 1);
  std::vector<float> angles = random_values<float>(tokens * width / 2, 2, 3), cosines, sines;
  for (const float angle : angles) {
    cosines.push_back(std::cos(angle));
    sines.push_back(std::sin(angle));
  }
  const Input<float> cos(cosines), sin(sines);
  Output<T> y(tokens * heads * width);
  RotaryParams<T> p{
      tokens,  heads,          width, x.device.data(), stride, cos.device.data(), sin.device.data(),
      inverse, y.device.data()};
  rotary_cuda(p, nullptr);
  rotary_reference<double>({tokens, heads, width, x.exact.data(), stride, cos.exact.data(),
                            sin.exact.data(), inverse, y.exact.data()});
  EXPECT_LT(y.error(), cuda_tolerance<T>().output);
}

TYPED_TEST(CudaRotary, MatchesItsDefinition) {
  for (const int64_t tokens : kLengths) {
    for (const int64_t width : {2, 6, 64, 128}) {
      for (const int64_t gap : {0, 5, 64}) {
        SCOPED_TRACE(::testing::Message() << tokens << " tokens, " << width << " and " << gap);
        expect_close_to_definition<TypeParam>(tokens, 3, width, gap, tokens % 2 == 0);
      }
    }
  }
}

}  // namespace
}  // namespace mambify::kernels
