// Builds files byte by byte, lying ones included.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace mambify::testing {

// Appends little-endian numbers and text to a buffer.
class Bytes {
 public:
  template <typename T>
  Bytes& number(T value) {
    buffer_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Bytes& text(std::string_view text) {
    buffer_.append(text);
    return *this;
  }
  Bytes& zeros(size_t count) {
    buffer_.append(count, '\0');
    return *this;
  }
  Bytes& align(size_t alignment) {
    return zeros((alignment - buffer_.size() % alignment) % alignment);
  }

  const std::string& str() const { return buffer_; }
  std::span<const std::byte> span() const { return std::as_bytes(std::span(buffer_)); }

 private:
  std::string buffer_;
};

}  // namespace mambify::testing
