#include "cuda/device_values.h"
#include "kernels/causal_conv1d/params.h"

namespace mambify::kernels {
namespace {

using namespace mambify::testing;

template <typename T>
using CudaCausalConv1d = CudaKernelTest<T>;
TYPED_TEST_SUITE(CudaCausalConv1d, DeviceTypes);

// x is a column slice of wider rows, as is y.
template <typename T>
struct Problem {
  std::vector<int64_t> starts;
  int64_t channels, width = 4, gap = 5;
  bool silu = true, bias_given = true;

  int64_t tokens() const { return starts.back(); }
  int64_t stride = channels + gap;
  Input<T> x = Input<T>::random(tokens() * stride, 1);
  Input<T> weight = Input<T>::random(channels * width, 2, 0.5);
  Input<T> bias = Input<T>::random(channels, 3);
  Input<T> dy = Input<T>::random(tokens() * channels, 5);
};

template <typename T>
struct Result {
  explicit Result(const Problem<T>& q)
      : y(q.tokens() * q.channels),
        dx(q.tokens() * q.channels),
        dweight(q.channels * q.width),
        dbias(q.bias_given ? q.channels : 0) {}
  Output<T> y, dx;
  Output<float> dweight, dbias;
};

template <typename T>
Result<T> run(const Problem<T>& q) {
  Result<T> r(q);
  const DeviceArray<int32_t> starts(narrow_starts(q.starts));
  const auto documents = static_cast<int64_t>(q.starts.size()) - 1;
  const auto set = [&](auto& p, const auto& x, const auto& weight, const auto& bias) {
    p.documents = documents;
    p.channels = q.channels;
    p.width = q.width;
    p.silu = q.silu;
    p.x = x.data();
    p.x_stride = q.stride;
    p.weight = weight.data();
    p.bias = q.bias_given ? bias.data() : nullptr;
    p.y_stride = q.channels;
  };
  CausalConv1dCudaBackwardParams<T> b;
  set(b.forward, q.x.device, q.weight.device, q.bias.device);
  b.forward.starts = starts.data();
  b.forward.tokens = q.tokens();
  b.forward.y = r.y.device.data();
  b.dy = q.dy.device.data();
  b.dx = r.dx.device.data();
  b.dweight = r.dweight.device.data();
  b.dbias = q.bias_given ? r.dbias.device.data() : nullptr;
  const auto scratch = DeviceArray<char>::poisoned(
      causal_conv1d_backward_scratch_bytes(q.tokens(), q.channels, q.width));
  causal_conv1d_forward_cuda(b.forward, nullptr);
  causal_conv1d_backward_cuda(b, scratch.data(), nullptr);

  CausalConv1dBackwardParams<double> e;
  set(e.forward, q.x.exact, q.weight.exact, q.bias.exact);
  e.forward.starts = q.starts.data();
  e.forward.y = r.y.exact.data();
  e.dy = q.dy.exact.data();
  e.dx = r.dx.exact.data();
  e.dweight = r.dweight.exact.data();
  e.dbias = q.bias_given ? r.dbias.exact.data() : nullptr;
  causal_conv1d_forward_reference(e.forward);
  causal_conv1d_backward_reference(e);
  return r;
}

template <typename T>
void expect_close_to_definition(const Problem<T>& q) {
  const auto r = run(q);
  const Tolerance limit = cuda_tolerance<T>(), sums = cuda_sum_tolerance();
  EXPECT_LT(r.y.error(), limit.output);
  EXPECT_LT(r.dx.error(), limit.gradient);
  EXPECT_LT(r.dweight.error(), sums.gradient);
  EXPECT_LT(r.dbias.error(), sums.gradient);
}

TYPED_TEST(CudaCausalConv1d, MatchesItsDefinitionAtEveryLength) {
  for (const int64_t length : kLengths) {
    for (const int64_t channels : {1, 7, 64, 132, 960}) {
      for (const int64_t gap : {5, 64}) {
        SCOPED_TRACE(::testing::Message()
                     << length << " tokens, " << channels << " channels and " << gap);
        expect_close_to_definition<TypeParam>({{0, length}, channels, 4, gap});
      }
    }
  }
}

TYPED_TEST(CudaCausalConv1d, MatchesItsDefinitionInEveryForm) {
  for (const int64_t width : {1, 2, 3, 4, 5, 8}) {
    for (const bool silu : {false, true}) {
      for (const bool bias : {false, true}) {
        for (const int64_t gap : {3, 4}) {
          SCOPED_TRACE(::testing::Message()
                       << "width " << width << ", silu " << silu << ", bias " << bias);
          // Empty documents among short ones, some of them shorter than the filter.
          expect_close_to_definition<TypeParam>(
              {{0, 0, 5, 5, 7, 8, 9, 80, 81, 81}, 72, width, gap, silu, bias});
        }
      }
    }
  }
}

TYPED_TEST(CudaCausalConv1d, MatchesItsDefinitionWithLongRuns) {
  expect_close_to_definition<TypeParam>({{0, 1, 62, 63, 64, 1000, 1003, 4500}, 3200, 4, 0});
}

TYPED_TEST(CudaCausalConv1d, HasTheSameBitsEachTime) {
  const Problem<TypeParam> q{{0, 100, 3000}, 200};
  const auto first = run(q), second = run(q);
  EXPECT_EQ(first.dweight.bytes(), second.dweight.bytes());
  EXPECT_EQ(first.dbias.bytes(), second.dbias.bytes());
  EXPECT_EQ(first.dx.bytes(), second.dx.bytes());
}

}  // namespace
}  // namespace mambify::kernels
