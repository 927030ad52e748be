#include "io/tensor_file.h"

#include "core/error.h"

namespace mambify {
namespace {

struct DTypeInfo {
  const char* name;
  int64_t block_size, block_bytes;
};

DTypeInfo info_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return {"f64", 1, 8};
    case DType::f32:
      return {"f32", 1, 4};
    case DType::f16:
      return {"f16", 1, 2};
    case DType::bf16:
      return {"bf16", 1, 2};
    case DType::i64:
      return {"i64", 1, 8};
    case DType::i32:
      return {"i32", 1, 4};
    case DType::i16:
      return {"i16", 1, 2};
    case DType::i8:
      return {"i8", 1, 1};
    case DType::u8:
      return {"u8", 1, 1};
    case DType::boolean:
      return {"bool", 1, 1};
    case DType::q4_0:
      return {"q4_0", 32, 18};
    case DType::q4_1:
      return {"q4_1", 32, 20};
    case DType::q8_0:
      return {"q8_0", 32, 34};
  }
  throw Error("unknown element type {}", static_cast<int>(dtype));
}

}  // namespace

const char* dtype_name(DType dtype) { return info_of(dtype).name; }
int64_t dtype_block_size(DType dtype) { return info_of(dtype).block_size; }
int64_t dtype_block_bytes(DType dtype) { return info_of(dtype).block_bytes; }

int64_t dtype_bytes(DType dtype, int64_t elements) {
  const DTypeInfo info = info_of(dtype);
  if (elements < 0 || elements % info.block_size != 0) {
    throw Error("{} elements do not fill whole blocks of {} {} values", elements, info.block_size,
                info.name);
  }
  int64_t bytes = 0;
  if (__builtin_mul_overflow(elements / info.block_size, info.block_bytes, &bytes)) {
    throw Error("{} {} elements take more bytes than an address can count", elements, info.name);
  }
  return bytes;
}

std::optional<int64_t> checked_elements(std::span<const int64_t> shape) {
  int64_t elements = 1;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(elements, size, &elements)) return std::nullopt;
  }
  return elements;
}

std::optional<int64_t> checked_bytes(DType dtype, std::span<const int64_t> shape) {
  const DTypeInfo info = info_of(dtype);
  const std::optional<int64_t> elements = checked_elements(shape);
  const int64_t row = shape.empty() ? 1 : shape.back();
  int64_t bytes = 0;
  if (!elements || row % info.block_size != 0 ||
      __builtin_mul_overflow(*elements / info.block_size, info.block_bytes, &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

int64_t TensorView::elements() const {
  const std::optional<int64_t> count = checked_elements(shape);
  if (!count) throw Error("tensor '{}' has an impossible shape {}", name, shape_text(shape));
  return *count;
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

}  // namespace mambify
