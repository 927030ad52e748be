#include "io/tensor_file.h"

#include <limits>

#include "errors.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;

TEST(DType, BytesFollowTheBlocks) {
  EXPECT_EQ(dtype_bytes(DType::bf16, 3), 6);
  EXPECT_EQ(dtype_bytes(DType::boolean, 3), 3);
  EXPECT_EQ(dtype_bytes(DType::q4_0, 64), 36);
  EXPECT_EQ(dtype_bytes(DType::q4_1, 64), 40);
  EXPECT_EQ(dtype_bytes(DType::q8_0, 64), 68);
  EXPECT_EQ(dtype_bytes(DType::f64, 0), 0);
}

TEST(DType, RefusesBrokenBlocksAndOverflow) {
  EXPECT_ERROR(dtype_bytes(DType::q4_0, 33), HasSubstr("33 elements"), HasSubstr("32 q4_0"));
  EXPECT_ERROR(dtype_bytes(DType::f64, std::numeric_limits<int64_t>::max() / 4), HasSubstr("f64"));
}

TEST(CheckedElements, FindsOverflowAndNegativeSizes) {
  constexpr int64_t kHalf = int64_t{1} << 32;
  const auto count = [](std::vector<int64_t> shape) { return checked_elements(shape); };
  EXPECT_EQ(count({}), 1);
  EXPECT_EQ(count({2, 3, 4}), 24);
  EXPECT_EQ(count({7, 0}), 0);
  EXPECT_EQ(count({kHalf, kHalf}), std::nullopt);
  EXPECT_EQ(count({-1, -1}), std::nullopt);
}

TEST(CheckedBytes, NeedsRowsOfWholeBlocks) {
  const auto bytes = [](DType dtype, std::vector<int64_t> shape) {
    return checked_bytes(dtype, shape);
  };
  EXPECT_EQ(bytes(DType::f32, {2, 3}), 24);
  EXPECT_EQ(bytes(DType::f16, {}), 2);
  EXPECT_EQ(bytes(DType::q8_0, {2, 32}), 68);
  EXPECT_EQ(bytes(DType::q8_0, {32, 2}), std::nullopt);
  EXPECT_EQ(bytes(DType::q8_0, {}), std::nullopt);
  EXPECT_EQ(bytes(DType::f64, {int64_t{1} << 61}), std::nullopt);
}

TEST(ShapeText, WritesAList) {
  EXPECT_EQ(shape_text(std::vector<int64_t>{}), "[]");
  EXPECT_EQ(shape_text(std::vector<int64_t>{2, 3}), "[2, 3]");
}

}  // namespace
}  // namespace mambify
