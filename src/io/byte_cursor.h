// Reads binary data forward; every length is checked against the bytes that are left.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "core/error.h"

namespace mambify {

// `what`, everywhere: the part being read, for messages. origin: what messages call the file.
class ByteCursor {
 public:
  ByteCursor(std::span<const std::byte> bytes, const std::string& origin)
      : bytes_(bytes), origin_(origin) {}

  const std::string& origin() const { return origin_; }
  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }

  // A little-endian number.
  template <typename T>
  T read(const std::string& what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  // A 64-bit length, then as many bytes.
  std::string read_string(const std::string& what) {
    const auto length = read<uint64_t>(what);
    const auto text = take(length, what);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  // A 64-bit count of things that take `min_bytes` each at least: an absurd one is refused before
  // anything is reserved for it.
  size_t read_count(size_t min_bytes, const std::string& what) {
    const auto count = read<uint64_t>(what);
    if (count > left() / min_bytes) {
      throw Error("{}: {}: {} entries, but only {} bytes of the file are left", origin_, what,
                  count, left());
    }
    return count;
  }

 private:
  std::span<const std::byte> take(uint64_t count, const std::string& what) {
    if (count > left()) {
      throw Error("{}: {}: {} bytes needed at byte {}, but only {} of the file are left", origin_,
                  what, count, position_, left());
    }
    const auto result = bytes_.subspan(position_, count);
    position_ += count;
    return result;
  }

  std::span<const std::byte> bytes_;
  const std::string& origin_;
  size_t position_ = 0;
};

}  // namespace mambify
