// The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes.
// https://github.com/huggingface/safetensors (format)
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/tensor_file.h"

namespace mambify {

// Reads the header and checks it: every tensor inside the file, of the bytes its shape asks for,
// none overlapping, no byte unused. Throws Error naming the file and the tensor.
TensorMap open_safetensors(const fs::path& path);

// The same for a file's bytes; the views' `file` is empty. origin: what messages call the file.
TensorMap parse_safetensors(std::span<const std::byte> bytes, const std::string& origin);

// One tensor to write; `bytes` stay the caller's.
struct TensorToWrite {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

using SafetensorsMetadata = std::vector<std::pair<std::string, std::string>>;

// Writes atomically (temporary file, fsync, rename), in the order given. Throws Error for a name
// given twice, bytes that do not fit the shape, and types safetensors has no name for (q*).
void write_safetensors(const fs::path& path, std::span<const TensorToWrite> tensors,
                       const SafetensorsMetadata& metadata = {{"format", "pt"}});

}  // namespace mambify
