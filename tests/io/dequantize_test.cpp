#include <bit>
#include <cmath>
#include <limits>

#include "errors.h"
#include "io/bytes.h"
#include "io/tensor_file.h"

namespace mambify {
namespace {

using testing::Bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<float> decode(DType dtype, int64_t count, const Bytes& bytes) {
  EXPECT_EQ(static_cast<size_t>(dtype_bytes(dtype, count)), bytes.span().size());
  const TensorView view{"t", dtype, {count}, bytes.span(), nullptr};
  std::vector<float> out(static_cast<size_t>(count), std::nanf(""));
  dequantize(view, out.data());
  return out;
}

// What a half means, by the definition of IEEE 754.
float half_by_definition(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) {
    return mantissa == 0 ? sign * std::numeric_limits<float>::infinity()
                         : std::numeric_limits<float>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(1024.0f + static_cast<float>(mantissa), exponent - 25);
}

TEST(Dequantize, EveryHalfIsExact) {
  Bytes bytes;
  for (uint32_t bits = 0; bits < 65536; ++bits) bytes.number(static_cast<uint16_t>(bits));
  const std::vector<float> values = decode(DType::f16, 65536, bytes);
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float expected = half_by_definition(static_cast<uint16_t>(bits));
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(values[bits])) << bits;
    } else {
      ASSERT_EQ(std::bit_cast<uint32_t>(values[bits]), std::bit_cast<uint32_t>(expected)) << bits;
    }
  }
}

TEST(Dequantize, BrainFloatsAreTheUpperHalfOfFloats) {
  Bytes bytes;
  for (uint32_t bits = 0; bits < 65536; ++bits) bytes.number(static_cast<uint16_t>(bits));
  const std::vector<float> values = decode(DType::bf16, 65536, bytes);
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    ASSERT_EQ(std::bit_cast<uint32_t>(values[bits]), bits << 16);
  }
}

TEST(Dequantize, FloatsAndDoubles) {
  EXPECT_THAT(decode(DType::f32, 2, Bytes().number(1.5f).number(-1e-40f)),
              ElementsAre(1.5f, -1e-40f));
  EXPECT_THAT(decode(DType::f64, 3, Bytes().number(0.1).number(1e300).number(-0.0)),
              ElementsAre(0.1f, std::numeric_limits<float>::infinity(), -0.0f));
}

TEST(Dequantize, Q8_0) {
  Bytes bytes;  // block 0: d = 0.5, q = -16..15; block 1: d = -2, q = 127, -128, then 0
  bytes.number<uint16_t>(0x3800);
  for (int q = -16; q < 16; ++q) bytes.number(static_cast<int8_t>(q));
  bytes.number<uint16_t>(0xc000).number<int8_t>(127).number<int8_t>(-128).zeros(30);
  const std::vector<float> values = decode(DType::q8_0, 64, bytes);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(values[i], 0.5f * static_cast<float>(i - 16));
  EXPECT_EQ(values[32], -254.0f);
  EXPECT_EQ(values[33], 256.0f);
  EXPECT_EQ(values[63], 0.0f);
}

// Nibbles: byte j holds weight j in its low half and weight j + 16 in its high half.
Bytes& nibbles(Bytes& bytes) {
  for (int j = 0; j < 16; ++j) bytes.number(static_cast<uint8_t>(j | (15 - j) << 4));
  return bytes;
}

TEST(Dequantize, Q4_0) {
  Bytes bytes;  // d = 0.25
  bytes.number<uint16_t>(0x3400);
  const std::vector<float> values = decode(DType::q4_0, 32, nibbles(bytes));
  for (int j = 0; j < 16; ++j) {
    EXPECT_EQ(values[j], 0.25f * static_cast<float>(j - 8));
    EXPECT_EQ(values[j + 16], 0.25f * static_cast<float>(7 - j));
  }
}

TEST(Dequantize, Q4_1) {
  Bytes bytes;  // d = 2, m = -1
  bytes.number<uint16_t>(0x4000).number<uint16_t>(0xbc00);
  const std::vector<float> values = decode(DType::q4_1, 32, nibbles(bytes));
  for (int j = 0; j < 16; ++j) {
    EXPECT_EQ(values[j], 2.0f * static_cast<float>(j) - 1.0f);
    EXPECT_EQ(values[j + 16], 2.0f * static_cast<float>(15 - j) - 1.0f);
  }
}

TEST(Dequantize, ASubnormalScaleCounts) {
  Bytes bytes;  // d = 2^-24, the smallest half
  bytes.number<uint16_t>(1).number<int8_t>(3).zeros(31);
  EXPECT_EQ(decode(DType::q8_0, 32, bytes)[0], std::ldexp(3.0f, -24));
}

TEST(Dequantize, RefusesIntegers) {
  EXPECT_ERROR(decode(DType::i32, 1, Bytes().zeros(4)), HasSubstr("'t'"), HasSubstr("i32"));
}

}  // namespace
}  // namespace mambify
