#include "cuda/device_values.h"
#include "kernels/swiglu/params.h"

namespace mambify::kernels {
namespace {

using namespace mambify::testing;

template <typename T>
using CudaSwiGlu = CudaKernelTest<T>;
TYPED_TEST_SUITE(CudaSwiGlu, DeviceTypes);

template <typename T>
void expect_close_to_definition(int64_t rows, int64_t width, int64_t gap) {
  const int64_t count = rows * width, stride = width + gap;
  const auto gate = Input<T>::random(rows * stride, 1, 4), up = Input<T>::random(rows * stride, 2),
             dy = Input<T>::random(count, 3);
  Output<T> y(count);
  const auto dgate = DeviceArray<T>::poisoned(rows * stride),
             dup = DeviceArray<T>::poisoned(rows * stride);
  const SwiGluRowsParams<T> p{rows,   width,          gate.device.data(), stride, up.device.data(),
                              stride, y.device.data()};
  swiglu_forward_cuda(p, nullptr);
  swiglu_backward_cuda<T>({p, dy.device.data(), dgate.data(), dup.data(), stride}, nullptr);

  const auto exact_gate = dense_rows(gate.exact, width, stride),
             exact_up = dense_rows(up.exact, width, stride);
  const SwiGluParams<double> e{count, exact_gate.data(), exact_up.data(), y.exact.data()};
  swiglu_forward_reference(e);
  std::vector<double> exact_dgate(count), exact_dup(count);
  swiglu_backward_reference<double>({e, dy.exact.data(), exact_dgate.data(), exact_dup.data()});
  const auto error = [&](const DeviceArray<T>& actual, const std::vector<double>& exact) {
    return max_relative_error(dense_rows(widened(actual.download()), width, stride), exact);
  };
  const Tolerance limit = cuda_tolerance<T>();
  EXPECT_LT(y.error(), limit.output);
  EXPECT_LT(error(dgate, exact_dgate), limit.gradient);
  EXPECT_LT(error(dup, exact_dup), limit.gradient);
}

TYPED_TEST(CudaSwiGlu, MatchesItsDefinition) {
  for (const int64_t rows : kLengths) {
    for (const int64_t width : {1, 7, 64, 1536}) {
      for (const int64_t gap : {0, 3, 64}) {
        SCOPED_TRACE(::testing::Message() << rows << " rows of " << width << " and " << gap);
        expect_close_to_definition<TypeParam>(rows, width, gap);
      }
    }
  }
}

}  // namespace
}  // namespace mambify::kernels
