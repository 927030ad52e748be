#include "io/gguf_values.h"

#include <limits>
#include <utility>

#include "core/error.h"

namespace mambify {
namespace {

// gguf_metadata_value_type, in its order.
enum class ValueType : uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

bool read_bool(ByteCursor& cursor, const std::string& what) {
  const auto value = cursor.read<uint8_t>(what);
  if (value > 1) {
    throw Error("{}: {}: {} where true or false is expected", cursor.origin(), what, value);
  }
  return value == 1;
}

// The elements of an array, each of at least `min_bytes`, by `read`.
template <typename T, typename Read>
std::vector<T> read_elements(ByteCursor& cursor, size_t min_bytes, const std::string& what,
                             Read read) {
  const size_t count = cursor.read_count(min_bytes, what);
  std::vector<T> values;
  values.reserve(count);
  for (size_t i = 0; i < count; ++i) values.push_back(read(cursor, what));
  return values;
}

// A scalar, or an array of them, stored as `Stored` and given as T.
template <typename T, typename Stored>
GgufValue read_numbers(ByteCursor& cursor, bool is_array, const std::string& what) {
  const auto read = [](ByteCursor& from, const std::string& part) {
    return static_cast<T>(from.read<Stored>(part));
  };
  if (is_array) return read_elements<T>(cursor, sizeof(Stored), what, read);
  return read(cursor, what);
}

GgufValue read_of_type(ByteCursor& cursor, uint32_t type, bool is_array, const std::string& what) {
  const auto read_string = [](ByteCursor& from, const std::string& part) {
    return from.read_string(part);
  };
  switch (static_cast<ValueType>(type)) {
    case ValueType::u8:
      return read_numbers<int64_t, uint8_t>(cursor, is_array, what);
    case ValueType::i8:
      return read_numbers<int64_t, int8_t>(cursor, is_array, what);
    case ValueType::u16:
      return read_numbers<int64_t, uint16_t>(cursor, is_array, what);
    case ValueType::i16:
      return read_numbers<int64_t, int16_t>(cursor, is_array, what);
    case ValueType::u32:
      return read_numbers<int64_t, uint32_t>(cursor, is_array, what);
    case ValueType::i32:
      return read_numbers<int64_t, int32_t>(cursor, is_array, what);
    case ValueType::i64:
      return read_numbers<int64_t, int64_t>(cursor, is_array, what);
    case ValueType::f32:
      return read_numbers<double, float>(cursor, is_array, what);
    case ValueType::f64:
      return read_numbers<double, double>(cursor, is_array, what);
    case ValueType::u64:
      if (is_array) return read_elements<int64_t>(cursor, 8, what, read_gguf_u64);
      return read_gguf_u64(cursor, what);
    case ValueType::boolean:
      if (is_array) return read_elements<bool>(cursor, 1, what, read_bool);
      return read_bool(cursor, what);
    case ValueType::string:
      if (is_array) return read_elements<std::string>(cursor, 8, what, read_string);
      return cursor.read_string(what);
    case ValueType::array:
      throw Error("{}: {}: arrays of arrays are not supported", cursor.origin(), what);
  }
  throw Error("{}: {}: unknown value type {}", cursor.origin(), what, type);
}

}  // namespace

int64_t read_gguf_u64(ByteCursor& cursor, const std::string& what) {
  const auto value = cursor.read<uint64_t>(what);
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    throw Error("{}: {}: {} is above the range of 64-bit signed integers", cursor.origin(), what,
                value);
  }
  return static_cast<int64_t>(value);
}

GgufValue read_gguf_value(ByteCursor& cursor, const std::string& what) {
  const auto type = cursor.read<uint32_t>(what);
  if (type != static_cast<uint32_t>(ValueType::array)) {
    return read_of_type(cursor, type, /*is_array=*/false, what);
  }
  const auto element_type = cursor.read<uint32_t>(what);
  return read_of_type(cursor, element_type, /*is_array=*/true, what);
}

}  // namespace mambify
