// What every checkpoint format comes down to: named, typed, shaped views of mapped bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"

namespace mambify {

// Element types as stored. The q* types are GGUF's blocks of 32 weights.
enum class DType { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean, q4_0, q4_1, q8_0 };

const char* dtype_name(DType dtype);
// Elements that share one block (1 for plain types) and that block's bytes.
int64_t dtype_block_size(DType dtype);
int64_t dtype_block_bytes(DType dtype);
// Bytes of `elements` elements. Throws Error when they do not fill whole blocks.
int64_t dtype_bytes(DType dtype, int64_t elements);

// The product of the sizes, nothing when one is negative or the product overflows.
std::optional<int64_t> checked_elements(std::span<const int64_t> shape);
// Bytes of a tensor; nothing when its shape is impossible, as above or because its last dimension
// does not fill whole blocks.
std::optional<int64_t> checked_bytes(DType dtype, std::span<const int64_t> shape);

// A tensor inside a mapped file. `shape` is in row-major order, outermost first, for every format.
struct TensorView {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;        // row-major, little-endian
  std::shared_ptr<const MappedFile> file;  // keeps `bytes` alive

  int64_t elements() const;
};

using TensorMap = std::map<std::string, TensorView>;

// "[2, 3]".
std::string shape_text(std::span<const int64_t> shape);

// Decodes any floating or quantised view to fp32. out holds view.elements() values. Throws Error
// for integer types.
// GGUF block layouts: ggml's block_q4_0, block_q4_1, block_q8_0.
void dequantize(const TensorView& view, float* out);

}  // namespace mambify
