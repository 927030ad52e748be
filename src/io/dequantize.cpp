#include <bit>
#include <cstring>

#include "core/error.h"
#include "io/tensor_file.h"

namespace mambify {
namespace {

constexpr int64_t kBlock = 32;  // weights of a q* block

template <typename T>
T load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

// Without branches, so that loops over it vectorise, and without subnormal fp32 values on the way,
// so that a process that flushes those to zero still reads subnormal halves.
float half_to_float(uint16_t half) {
  constexpr uint32_t kExponent = 0x7c00u << 13, kRebias = (127u - 15u) << 23;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
  const uint32_t exponent = magnitude & kExponent;
  const uint32_t normal = magnitude + kRebias;
  const uint32_t special = normal + kRebias;  // infinity and NaN: exponent 31 becomes 255
  // mantissa * 2^-24 as the difference of two numbers in the binade of 2^-14
  constexpr uint32_t kSmallestNormal = 113u << 23;
  const uint32_t subnormal = std::bit_cast<uint32_t>(
      std::bit_cast<float>(magnitude + kSmallestNormal) - std::bit_cast<float>(kSmallestNormal));
  uint32_t bits = exponent == 0 ? subnormal : normal;
  bits = exponent == kExponent ? special : bits;
  return std::bit_cast<float>(bits | sign);
}

float brain_to_float(uint16_t brain) {
  return std::bit_cast<float>(static_cast<uint32_t>(brain) << 16);
}

// Plain types: one value from sizeof(T) bytes.
template <typename T, typename Convert>
void convert_each(const TensorView& view, float* out, Convert convert) {
  const std::byte* in = view.bytes.data();
  const int64_t count = view.elements();
  for (int64_t i = 0; i < count; ++i) out[i] = convert(load<T>(in + i * sizeof(T)));
}

// Block types: `decode` turns one block's bytes into kBlock values.
template <typename Decode>
void convert_blocks(const TensorView& view, float* out, Decode decode) {
  const int64_t block_bytes = dtype_block_bytes(view.dtype);
  const int64_t blocks = view.elements() / kBlock;
  const std::byte* in = view.bytes.data();
  for (int64_t i = 0; i < blocks; ++i) decode(in + i * block_bytes, out + i * kBlock);
}

// block_q8_0: half d; int8 q[32]. y = d q
void decode_q8_0(const std::byte* block, float* out) {
  const float scale = half_to_float(load<uint16_t>(block));
  for (int64_t i = 0; i < kBlock; ++i) out[i] = scale * static_cast<int8_t>(block[2 + i]);
}

// block_q4_0: half d; 16 bytes, the low nibbles hold weights 0..15, the high ones 16..31.
// y = d (q - 8)
void decode_q4_0(const std::byte* block, float* out) {
  const float scale = half_to_float(load<uint16_t>(block));
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    const int pair = std::to_integer<int>(block[2 + i]);
    out[i] = scale * static_cast<float>((pair & 15) - 8);
    out[i + kBlock / 2] = scale * static_cast<float>((pair >> 4) - 8);
  }
}

// block_q4_1: half d, m; nibbles as in q4_0. y = d q + m
void decode_q4_1(const std::byte* block, float* out) {
  const float scale = half_to_float(load<uint16_t>(block));
  const float minimum = half_to_float(load<uint16_t>(block + 2));
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    const int pair = std::to_integer<int>(block[4 + i]);
    out[i] = scale * static_cast<float>(pair & 15) + minimum;
    out[i + kBlock / 2] = scale * static_cast<float>(pair >> 4) + minimum;
  }
}

}  // namespace

void dequantize(const TensorView& view, float* out) {
  switch (view.dtype) {
    case DType::f64:
      return convert_each<double>(view, out, [](double v) { return static_cast<float>(v); });
    case DType::f32:
      return convert_each<float>(view, out, [](float v) { return v; });
    case DType::f16:
      return convert_each<uint16_t>(view, out, half_to_float);
    case DType::bf16:
      return convert_each<uint16_t>(view, out, brain_to_float);
    case DType::q8_0:
      return convert_blocks(view, out, decode_q8_0);
    case DType::q4_0:
      return convert_blocks(view, out, decode_q4_0);
    case DType::q4_1:
      return convert_blocks(view, out, decode_q4_1);
    default:
      throw Error("tensor '{}' holds {} values where floating-point ones are expected", view.name,
                  dtype_name(view.dtype));
  }
}

}  // namespace mambify
