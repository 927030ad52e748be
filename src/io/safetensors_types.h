// The type names of the safetensors format; one table reads and writes them.
#pragma once

#include "io/tensor_file.h"

namespace mambify {

struct SafetensorsType {
  const char* name;
  DType dtype;
};

inline constexpr SafetensorsType kSafetensorsTypes[] = {
    {"F64", DType::f64}, {"F32", DType::f32},      {"F16", DType::f16}, {"BF16", DType::bf16},
    {"I64", DType::i64}, {"I32", DType::i32},      {"I16", DType::i16}, {"I8", DType::i8},
    {"U8", DType::u8},   {"BOOL", DType::boolean},
};

}  // namespace mambify
