#include <cmath>
#include <tuple>

#include "cuda/device_values.h"
#include "kernels/selective_scan/params.h"

namespace mambify::kernels {
namespace {

using namespace mambify::testing;

template <typename T>
using CudaSelectiveScan = CudaKernelTest<T>;
TYPED_TEST_SUITE(CudaSelectiveScan, DeviceTypes);

struct Shape {
  int64_t channels, d_state, b_groups, c_groups;
};
// Each way to divide the work, with groups of a block, of a warp and of less; states that fill a
// thread's and that do not.
constexpr Shape kShapes[] = {{12, 5, 3, 6},   {64, 16, 2, 4}, {160, 16, 1, 10}, {128, 16, 1, 1},
                             {48, 9, 1, 3},   {70, 9, 1, 2},  {7, 13, 1, 1},    {64, 64, 1, 1},
                             {192, 64, 1, 3}, {12, 40, 1, 3}, {256, 128, 1, 2}, {10, 40, 1, 5},
                             {576, 64, 3, 9}, {48, 64, 1, 2}, {100, 64, 1, 1}};

Input<float> negative_exponentials(int64_t count, uint64_t seed) {
  std::vector<float> values = random_values<float>(count, seed);
  for (float& a : values) a = -std::exp(a);
  return Input<float>(values);
}

// What a mixer computes; x, dt, B and C are column slices of wider rows.
template <typename T>
struct Problem {
  Shape s;
  std::vector<int64_t> starts;
  bool optional = true;  // with dt_bias and D
  int64_t gap = 6;

  int64_t tokens() const { return starts.back(); }
  int64_t x_stride = s.channels + gap, b_stride = s.b_groups * s.d_state + gap,
          c_stride = s.c_groups * s.d_state + gap;
  Input<T> x = Input<T>::random(tokens() * x_stride, 1);
  Input<T> dt = Input<T>::random(tokens() * x_stride, 2, 1, -2);
  Input<T> B = Input<T>::random(tokens() * b_stride, 3);
  Input<T> C = Input<T>::random(tokens() * c_stride, 4);
  Input<T> dy = Input<T>::random(tokens() * s.channels, 5);
  Input<float> dt_bias = Input<float>::random(s.channels, 6);
  Input<float> A = negative_exponentials(s.channels * s.d_state, 7);
  Input<float> D = Input<float>::random(s.channels, 8);
};

template <typename T>
struct Result {
  explicit Result(const Problem<T>& q)
      : y(q.tokens() * q.s.channels),
        dx(q.tokens() * q.s.channels),
        ddt(q.tokens() * q.s.channels),
        dB(q.tokens() * q.s.b_groups * q.s.d_state),
        dC(q.tokens() * q.s.c_groups * q.s.d_state),
        dA(q.s.channels * q.s.d_state),
        ddt_bias(q.optional ? q.s.channels : 0),
        dD(q.optional ? q.s.channels : 0) {}
  Output<T> y, dx, ddt, dB, dC;
  Output<float> dA, ddt_bias, dD;
};

template <typename T>
Result<T> run(const Problem<T>& q) {
  Result<T> r(q);
  const DeviceArray<int32_t> starts(narrow_starts(q.starts));
  const auto set = [&](auto& p, const auto&... in) {
    p.documents = static_cast<int64_t>(q.starts.size()) - 1;
    p.channels = q.s.channels;
    p.d_state = q.s.d_state;
    p.b_groups = q.s.b_groups;
    p.c_groups = q.s.c_groups;
    p.x_stride = p.dt_stride = q.x_stride;
    p.b_stride = q.b_stride;
    p.c_stride = q.c_stride;
    std::tie(p.x, p.dt, p.B, p.C, p.A) = std::tuple(in...);
  };
  SelectiveScanCudaBackwardParams<T> b;
  set(b.forward, q.x.device.data(), q.dt.device.data(), q.B.device.data(), q.C.device.data(),
      q.A.device.data());
  b.forward.starts = starts.data();
  b.forward.tokens = q.tokens();
  if (q.optional) {
    b.forward.dt_bias = q.dt_bias.device.data();
    b.forward.D = q.D.device.data();
    b.ddt_bias = r.ddt_bias.device.data();
    b.dD = r.dD.device.data();
  }
  const auto checkpoints = DeviceArray<char>::poisoned(selective_scan_checkpoint_bytes(b.forward));
  const auto scratch =
      DeviceArray<char>::poisoned(selective_scan_backward_scratch_bytes(b.forward));
  b.forward.checkpoints = reinterpret_cast<float*>(checkpoints.data());
  b.forward.y = r.y.device.data();
  b.dy = q.dy.device.data();
  b.dx = r.dx.device.data();
  b.ddt = r.ddt.device.data();
  b.dA = r.dA.device.data();
  b.dB = r.dB.device.data();
  b.dC = r.dC.device.data();
  selective_scan_forward_cuda(b.forward, nullptr);
  selective_scan_backward_cuda(b, scratch.data(), nullptr);

  SelectiveScanBackwardParams<double> e;
  set(e.forward, q.x.exact.data(), q.dt.exact.data(), q.B.exact.data(), q.C.exact.data(),
      q.A.exact.data());
  e.forward.starts = q.starts.data();
  if (q.optional) {
    e.forward.dt_bias = q.dt_bias.exact.data();
    e.forward.D = q.D.exact.data();
    e.ddt_bias = r.ddt_bias.exact.data();
    e.dD = r.dD.exact.data();
  }
  e.forward.y = r.y.exact.data();
  e.dy = q.dy.exact.data();
  e.dx = r.dx.exact.data();
  e.ddt = r.ddt.exact.data();
  e.dA = r.dA.exact.data();
  e.dB = r.dB.exact.data();
  e.dC = r.dC.exact.data();
  selective_scan_forward_reference(e.forward);
  selective_scan_backward_reference(e);
  return r;
}

template <typename T>
void expect_close_to_definition(const Problem<T>& q) {
  const auto r = run(q);
  const Tolerance limit = cuda_tolerance<T>(), sums = cuda_sum_tolerance();
  EXPECT_LT(r.y.error(), limit.output);
  EXPECT_LT(r.dx.error(), limit.gradient);
  EXPECT_LT(r.ddt.error(), limit.gradient);
  EXPECT_LT(r.dB.error(), limit.gradient);
  EXPECT_LT(r.dC.error(), limit.gradient);
  EXPECT_LT(r.dA.error(), sums.gradient);
  EXPECT_LT(r.ddt_bias.error(), sums.gradient);
  EXPECT_LT(r.dD.error(), sums.gradient);
}

TYPED_TEST(CudaSelectiveScan, MatchesItsDefinitionAtEveryLength) {
  for (const Shape& shape : kShapes) {
    for (const int64_t length : kLengths) {
      SCOPED_TRACE(::testing::Message() << length << " tokens, " << shape.channels << " channels, "
                                        << shape.d_state << " states");
      expect_close_to_definition<TypeParam>({shape, {0, length}});
    }
  }
}

TYPED_TEST(CudaSelectiveScan, MatchesItsDefinitionOnPackedDocuments) {
  for (const Shape& shape : kShapes) {
    for (const bool optional : {false, true}) {
      // Rows that cannot, and rows that can be read several elements at a time.
      for (const int64_t gap : {6, 8}) {
        SCOPED_TRACE(::testing::Message() << shape.channels << " channels, " << shape.d_state
                                          << " states, rows longer by " << gap);
        expect_close_to_definition<TypeParam>(
            {shape, {0, 0, 1, 9, 9, 40, 72, 105, 300}, optional, gap});
      }
    }
  }
}

TYPED_TEST(CudaSelectiveScan, HasTheSameBitsEachTimeAndWhateverItsNeighbours) {
  const Shape shape{160, 16, 1, 10};
  const auto together = run(Problem<TypeParam>{shape, {0, 100, 300}}),
             again = run(Problem<TypeParam>{shape, {0, 100, 300}}),
             alone = run(Problem<TypeParam>{shape, {0, 100}});
  EXPECT_EQ(together.dA.bytes(), again.dA.bytes());
  EXPECT_EQ(together.dB.bytes(), again.dB.bytes());
  for (const auto output :
       {&Result<TypeParam>::y, &Result<TypeParam>::ddt, &Result<TypeParam>::dC}) {
    const std::vector<char> first = (alone.*output).bytes(), all = (together.*output).bytes();
    EXPECT_TRUE(std::equal(first.begin(), first.end(), all.begin()));
  }
}

}  // namespace
}  // namespace mambify::kernels
