#include "io/gguf_types.h"

#include <algorithm>
#include <iterator>

#include "core/error.h"

namespace mambify {
namespace {

struct GgmlType {
  uint32_t id;
  DType dtype;
};

constexpr GgmlType kSupported[] = {
    {0, DType::f32},  {1, DType::f16},  {2, DType::q4_0},  {3, DType::q4_1},
    {8, DType::q8_0}, {24, DType::i8},  {25, DType::i16},  {26, DType::i32},
    {27, DType::i64}, {28, DType::f64}, {30, DType::bf16},
};

// Names of enum ggml_type, "" where a number is unused, for messages about the types not above.
constexpr const char* kNames[] = {
    "F32",    "F16",   "Q4_0",  "Q4_1",   "",      "",      "Q5_0",    "Q5_1",   "Q8_0",    "Q8_1",
    "Q2_K",   "Q3_K",  "Q4_K",  "Q5_K",   "Q6_K",  "Q8_K",  "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S",
    "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",    "I16",   "I32",     "I64",    "F64",     "IQ1_M",
    "BF16",   "",      "",      "",       "TQ1_0", "TQ2_0", "",        "",       "",        "MXFP4",
};

}  // namespace

DType gguf_dtype(uint32_t ggml_type, const std::string& tensor) {
  const auto* type = std::ranges::find(kSupported, ggml_type, &GgmlType::id);
  if (type != std::end(kSupported)) return type->dtype;
  const char* name = ggml_type < std::size(kNames) ? kNames[ggml_type] : "";
  throw Error("{} has type {} {}, supported are F32, F16, BF16, Q8_0, Q4_0 and Q4_1", tensor,
              ggml_type, *name == '\0' ? "(unknown)" : name);
}

}  // namespace mambify
