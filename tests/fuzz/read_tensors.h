// What a fuzzer of a weight format does with the tensors it got: read every byte of them.
#pragma once

#include <cstdlib>
#include <vector>

#include "core/error.h"
#include "io/tensor_file.h"

namespace mambify {

// Aborts when a view breaks what its parser promises.
inline void read_tensors(const TensorMap& tensors) {
  for (const auto& [name, view] : tensors) {
    const auto bytes = static_cast<size_t>(dtype_bytes(view.dtype, view.elements()));
    if (view.name != name || view.bytes.size() != bytes) std::abort();
    std::vector<std::byte> copy(view.bytes.begin(), view.bytes.end());
    std::vector<float> values(static_cast<size_t>(view.elements()));
    try {
      dequantize(view, values.data());
    } catch (const Error&) {
      // an integer type
    }
  }
}

}  // namespace mambify
