// GGUF files made by hand for tests: nothing is checked, so that they can lie.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/bytes.h"

namespace mambify::testing {

// gguf_metadata_value_type
inline constexpr uint32_t kGgufU8 = 0, kGgufI8 = 1, kGgufU16 = 2, kGgufI16 = 3, kGgufU32 = 4,
                          kGgufI32 = 5, kGgufF32 = 6, kGgufBool = 7, kGgufString = 8,
                          kGgufArray = 9, kGgufU64 = 10, kGgufI64 = 11, kGgufF64 = 12;
// ggml_type
inline constexpr uint32_t kGgmlF32 = 0, kGgmlF16 = 1, kGgmlQ4_0 = 2, kGgmlQ4_1 = 3, kGgmlQ8_0 = 8,
                          kGgmlQ4_K = 12, kGgmlBF16 = 30;

inline std::string gguf_string(std::string_view text) {
  return Bytes().number<uint64_t>(text.size()).text(text).str();
}

struct GgufBuilder {
  uint32_t version = 3;
  size_t alignment = 32;  // of the data; the key is for the test to add
  std::string pairs, infos, data;
  uint64_t pair_count = 0, tensor_count = 0;

  // value: its bytes as stored, for an array behind element type and count.
  GgufBuilder& pair(std::string_view key, uint32_t type, std::string_view value) {
    pairs += Bytes().text(gguf_string(key)).number(type).text(value).str();
    ++pair_count;
    return *this;
  }
  template <typename T>
  GgufBuilder& number(std::string_view key, uint32_t type, T value) {
    return pair(key, type, Bytes().number(value).str());
  }
  // dimensions: in ggml's order, innermost first.
  GgufBuilder& info(std::string_view name, std::vector<uint64_t> dimensions, uint32_t type,
                    uint64_t offset) {
    Bytes bytes;
    bytes.text(gguf_string(name)).number(static_cast<uint32_t>(dimensions.size()));
    for (const uint64_t size : dimensions) bytes.number(size);
    infos += bytes.number(type).number(offset).str();
    ++tensor_count;
    return *this;
  }
  // An honest tensor at the end of the data.
  GgufBuilder& tensor(std::string_view name, std::vector<uint64_t> dimensions, uint32_t type,
                      std::string_view bytes) {
    data.resize((data.size() + alignment - 1) / alignment * alignment);
    info(name, std::move(dimensions), type, data.size());
    data += bytes;
    return *this;
  }

  std::string build() const {
    return Bytes()
        .text("GGUF")
        .number(version)
        .number(tensor_count)
        .number(pair_count)
        .text(pairs)
        .text(infos)
        .align(alignment)
        .text(data)
        .str();
  }
};

}  // namespace mambify::testing
