#include "cuda/device_values.h"
#include "kernels/causal_conv1d/params.h"

namespace mambify::kernels {
namespace {

using namespace mambify::testing;

template <typename T>
using CudaCausalConv1d = CudaKernelTest<T>;
TYPED_TEST_SUITE(CudaCausalConv1d, DeviceTypes);

// x is a column slice of wider rows.
template <typename T>
struct Problem {
  std::vector<int64_t> starts;
  int64_t channels, width = 4, gap = 5;
  bool silu = true, bias_given = true;
  int64_t x_repeats = 1, x_block = 1;

  int64_t tokens() const { return starts.back(); }
  int64_t stride = channels / x_repeats + gap;
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

// [tokens, channels], blocks that are read several times repeated.
template <typename T>
std::vector<double> repeated_x(const Problem<T>& q) {
  std::vector<double> x;
  for (int64_t t = 0; t < q.tokens(); ++t) {
    for (int64_t c = 0; c < q.channels; ++c) {
      const int64_t block = c / q.x_block / q.x_repeats;
      x.push_back(q.x.exact[t * q.stride + block * q.x_block + c % q.x_block]);
    }
  }
  return x;
}

template <typename T>
Result<T> run(const Problem<T>& q) {
  Result<T> r(q);
  const DeviceArray<int32_t> starts(narrow_starts(q.starts));
  const auto documents = static_cast<int64_t>(q.starts.size()) - 1;
  const auto set = [&](auto& p, const auto& weight, const auto& bias) {
    p.documents = documents;
    p.channels = q.channels;
    p.width = q.width;
    p.silu = q.silu;
    p.weight = weight.data();
    p.bias = q.bias_given ? bias.data() : nullptr;
    p.y_stride = q.channels;
  };
  CausalConv1dCudaBackwardParams<T> b;
  set(b.forward, q.weight.device, q.bias.device);
  b.forward.x = q.x.device.data();
  b.forward.x_stride = q.stride;
  b.forward.x_repeats = q.x_repeats;
  b.forward.x_block = q.x_block;
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
  set(e.forward, q.weight.exact, q.bias.exact);
  const std::vector<double> exact_x = repeated_x(q);
  e.forward.x = exact_x.data();
  e.forward.x_stride = q.channels;
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

TYPED_TEST(CudaCausalConv1d, BlocksThatAreSharedNeedNoCopies) {
  for (const int64_t block : {1, 6, 16, 64}) {
    for (const int64_t repeats : {2, 3}) {
      for (const int64_t gap : {3, 8}) {
        SCOPED_TRACE(::testing::Message() << repeats << " times blocks of " << block);
        expect_close_to_definition<TypeParam>({.starts = {0, 5, 5, 7, 80, 133},
                                               .channels = 2 * repeats * block,
                                               .gap = gap,
                                               .x_repeats = repeats,
                                               .x_block = block});
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
