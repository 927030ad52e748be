#include "ops/decode_attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ops/tensors.h"

namespace mambify {
namespace {

using namespace testing;

at::Tensor longs(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

TEST(StoreInCache, PutsEachTokenInItsPlaceAndTouchesNothingElse) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    at::Tensor cache = random_leaf({3, 2, 5, 4}, 1, 1, type).detach();
    const at::Tensor before = cache.clone();
    // A slice of a wider product, as a group's projections are.
    const at::Tensor x =
        random_leaf({3, 20}, 2, 1, type).detach().narrow(1, 6, 8).unflatten(1, {2, 4});
    store_in_cache(cache, x, longs({2, 0, 2}), longs({4, 0, 3}));
    at::Tensor expected = before;
    expected[2].select(1, 4).copy_(x[0]);
    expected[0].select(1, 0).copy_(x[1]);
    expected[2].select(1, 3).copy_(x[2]);
    EXPECT_TRUE(cache.equal(expected));
  }
}

TEST(StoreInCache, RefusesWhatHasNoPlace) {
  at::Tensor cache = at::zeros({3, 2, 5, 4});
  const at::Tensor x = at::ones({1, 2, 4});
  EXPECT_THROW(store_in_cache(cache, x, longs({3}), longs({0})), c10::Error);
  EXPECT_THROW(store_in_cache(cache, x, longs({0}), longs({5})), c10::Error);
  EXPECT_THROW(store_in_cache(cache, x, longs({0}), longs({-1})), c10::Error);
  EXPECT_THROW(store_in_cache(cache, x.to(at::kBFloat16), longs({0}), longs({0})), c10::Error);
  EXPECT_THROW(store_in_cache(cache, at::ones({1, 2, 3}), longs({0}), longs({0})), c10::Error);
}

}  // namespace
}  // namespace mambify
