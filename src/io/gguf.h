// GGUF, versions 2 and 3: llama.cpp's container of metadata and tensors.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "io/tensor_file.h"

namespace mambify {

// A metadata value. Integers of every width are int64_t (u64 above its range is an Error), floats
// double.
using GgufValue = std::variant<bool, int64_t, double, std::string, std::vector<bool>,
                               std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;

struct GgufFile {
  fs::path path;
  std::map<std::string, GgufValue> metadata;
  TensorMap tensors;  // shapes reversed to row-major: ggml's ne[0] is the last

  // Typed access; Errors name the file and the key, what was found and what was expected.
  template <typename T>
  const T& require(const std::string& key) const;
  template <typename T>
  std::optional<T> find(const std::string& key) const;
};

// Reads and checks everything but the weights themselves: counts and lengths against the bytes
// left, tensors inside the file and apart from each other, no key or tensor twice.
GgufFile open_gguf(const fs::path& path);
// The same for a file's bytes; the views' `file` is empty. origin: what messages call the file.
GgufFile parse_gguf(std::span<const std::byte> bytes, const std::string& origin);
// Whether `path` is a file that starts with GGUF's magic number.
bool is_gguf(const fs::path& path);

}  // namespace mambify
