// The tensor types of GGUF files.
#pragma once

#include <cstdint>
#include <string>

#include "io/tensor_file.h"

namespace mambify {

// The element type that a ggml_type number stands for. Throws Error when it is not supported;
// tensor: what the message calls the tensor.
DType gguf_dtype(uint32_t ggml_type, const std::string& tensor);

}  // namespace mambify
