#include "ops/swiglu.h"

#include <gtest/gtest.h>

#include "ops/tensors.h"
#include "tolerances.h"

namespace mambify {
namespace {

using namespace testing;

TEST(SwiGlu, MatchesTheNaiveFormWithGradients) {
  const Tolerance limit = tolerance("cpu", "fp32");
  expect_same_with_gradients([](const auto& in) { return swiglu(in[0], in[1]); },
                             [](const auto& in) { return in[0] * in[0].sigmoid() * in[1]; },
                             {random_leaf({37, 96}, 1), random_leaf({37, 96}, 2)}, limit.output,
                             limit.gradient);
}

TEST(SwiGlu, OfOneProductIsThatOfItsHalves) {
  expect_same_with_gradients(
      [](const auto& in) { return swiglu(in[0]); },
      [](const auto& in) { return swiglu(in[0].narrow(1, 0, 24), in[0].narrow(1, 24, 24)); },
      {random_leaf({37, 48}, 1)}, 1e-12, 1e-12);
}

TEST(SwiGlu, LeavesItsInputsAlone) {
  const at::Tensor gate = random_leaf({5, 8}, 1).detach(), up = random_leaf({5, 8}, 2).detach();
  const at::Tensor kept = gate.clone();
  swiglu(gate, up);
  EXPECT_TRUE(at::equal(gate, kept));
}

TEST(SwiGlu, RefusesSizesThatDiffer) {
  EXPECT_THROW(swiglu(at::zeros({2, 3}), at::zeros({2, 4})), c10::Error);
  EXPECT_THROW(swiglu(at::zeros({2, 3})), c10::Error);
}

}  // namespace
}  // namespace mambify
