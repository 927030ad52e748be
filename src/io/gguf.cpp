#include "io/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <fstream>
#include <limits>
#include <type_traits>
#include <utility>

#include "core/error.h"
#include "io/gguf_types.h"

namespace mambify {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr int64_t kDefaultAlignment = 32;
constexpr uint32_t kMaxDimensions = 4;  // ggml's GGML_MAX_DIMS

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

// Reads forward through the file; every length is checked against the bytes that are left.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& origin)
      : bytes_(bytes), origin_(origin) {}

  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }

  template <typename T>
  T read(const std::string& what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  std::string read_string(const std::string& what) {
    const auto length = read<uint64_t>(what);
    const auto text = take(length, what);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  // A count of things that take `min_bytes` each at least.
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

// Parses one file; `what` names the part being read for messages.
class Parser {
 public:
  Parser(std::span<const std::byte> bytes, const std::string& origin)
      : bytes_(bytes), origin_(origin), cursor_(bytes, origin) {}

  GgufFile parse() {
    GgufFile file;
    file.path = origin_;
    read_version();
    constexpr size_t kMinTensorBytes = 8 + 4 + 4 + 8, kMinPairBytes = 8 + 4 + 1;
    const size_t tensors = cursor_.read_count(kMinTensorBytes, "tensor count");
    const size_t pairs = cursor_.read_count(kMinPairBytes, "metadata count");
    for (size_t i = 0; i < pairs; ++i) read_pair(file);
    std::vector<uint64_t> offsets;
    for (size_t i = 0; i < tensors; ++i) {
      TensorView view = read_tensor_info(offsets);
      views_.push_back(std::move(view));
    }
    place_tensors(file, offsets);
    return file;
  }

 private:
  void read_version() {
    const auto magic = cursor_.read<std::array<char, 4>>("magic number");
    if (std::string_view(magic.data(), magic.size()) != kMagic) {
      throw Error("{}: not a GGUF file: it does not start with 'GGUF'", origin_);
    }
    const auto version = cursor_.read<uint32_t>("version");
    if (version != 2 && version != 3) {
      const bool swapped = version != 0 && (version & 0xffff) == 0;
      throw Error("{}: GGUF version {}{}, expected 2 or 3", origin_, version,
                  swapped ? " (a big-endian file?)" : "");
    }
  }

  void read_pair(GgufFile& file) {
    std::string key = cursor_.read_string("metadata key");
    const std::string what = fmt::format("key '{}'", key);
    const auto type = cursor_.read<uint32_t>(what);
    GgufValue value = type == static_cast<uint32_t>(ValueType::array) ? read_array(what)
                                                                      : read_scalar(type, what);
    if (!file.metadata.emplace(std::move(key), std::move(value)).second) {
      throw Error("{}: {} appears twice", origin_, what);
    }
  }

  bool read_bool(const std::string& what) {
    const auto value = cursor_.read<uint8_t>(what);
    if (value > 1) throw Error("{}: {}: {} where true or false is expected", origin_, what, value);
    return value == 1;
  }

  int64_t read_u64(const std::string& what) {
    const auto value = cursor_.read<uint64_t>(what);
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      throw Error("{}: {}: {} is above the range of 64-bit signed integers", origin_, what, value);
    }
    return static_cast<int64_t>(value);
  }

  GgufValue read_scalar(uint32_t type, const std::string& what) {
    switch (static_cast<ValueType>(type)) {
      case ValueType::u8:
        return int64_t{cursor_.read<uint8_t>(what)};
      case ValueType::i8:
        return int64_t{cursor_.read<int8_t>(what)};
      case ValueType::u16:
        return int64_t{cursor_.read<uint16_t>(what)};
      case ValueType::i16:
        return int64_t{cursor_.read<int16_t>(what)};
      case ValueType::u32:
        return int64_t{cursor_.read<uint32_t>(what)};
      case ValueType::i32:
        return int64_t{cursor_.read<int32_t>(what)};
      case ValueType::i64:
        return int64_t{cursor_.read<int64_t>(what)};
      case ValueType::u64:
        return read_u64(what);
      case ValueType::f32:
        return double{cursor_.read<float>(what)};
      case ValueType::f64:
        return cursor_.read<double>(what);
      case ValueType::boolean:
        return read_bool(what);
      case ValueType::string:
        return cursor_.read_string(what);
      case ValueType::array:
        break;
    }
    throw Error("{}: {}: unknown value type {}", origin_, what, type);
  }

  // Elements of at least `min_bytes` each, by `read`.
  template <typename T, typename Read>
  std::vector<T> read_elements(size_t min_bytes, const std::string& what, Read read) {
    const size_t count = cursor_.read_count(min_bytes, what);
    std::vector<T> values;
    values.reserve(count);
    for (size_t i = 0; i < count; ++i) values.push_back(static_cast<T>(read()));
    return values;
  }
  template <typename T, typename Stored>
  std::vector<T> read_numbers(const std::string& what) {
    return read_elements<T>(sizeof(Stored), what, [&] { return cursor_.read<Stored>(what); });
  }

  GgufValue read_array(const std::string& what) {
    const auto type = cursor_.read<uint32_t>(what);
    switch (static_cast<ValueType>(type)) {
      case ValueType::u8:
        return read_numbers<int64_t, uint8_t>(what);
      case ValueType::i8:
        return read_numbers<int64_t, int8_t>(what);
      case ValueType::u16:
        return read_numbers<int64_t, uint16_t>(what);
      case ValueType::i16:
        return read_numbers<int64_t, int16_t>(what);
      case ValueType::u32:
        return read_numbers<int64_t, uint32_t>(what);
      case ValueType::i32:
        return read_numbers<int64_t, int32_t>(what);
      case ValueType::i64:
        return read_numbers<int64_t, int64_t>(what);
      case ValueType::u64:
        return read_elements<int64_t>(8, what, [&] { return read_u64(what); });
      case ValueType::f32:
        return read_numbers<double, float>(what);
      case ValueType::f64:
        return read_numbers<double, double>(what);
      case ValueType::boolean:
        return read_elements<bool>(1, what, [&] { return read_bool(what); });
      case ValueType::string:
        return read_elements<std::string>(8, what, [&] { return cursor_.read_string(what); });
      case ValueType::array:
        throw Error("{}: {}: arrays of arrays are not supported", origin_, what);
    }
    throw Error("{}: {}: unknown array type {}", origin_, what, type);
  }

  TensorView read_tensor_info(std::vector<uint64_t>& offsets) {
    TensorView view;
    view.name = cursor_.read_string("tensor name");
    const std::string what = fmt::format("tensor '{}'", view.name);
    const auto dimensions = cursor_.read<uint32_t>(what);
    if (dimensions > kMaxDimensions) {
      throw Error("{}: {}: {} dimensions, at most {} are possible", origin_, what, dimensions,
                  kMaxDimensions);
    }
    for (uint32_t i = 0; i < dimensions; ++i) view.shape.push_back(read_u64(what));
    std::reverse(view.shape.begin(), view.shape.end());
    view.dtype = gguf_dtype(cursor_.read<uint32_t>(what), fmt::format("{}: {}", origin_, what));
    const int64_t row = view.shape.empty() ? 1 : view.shape.back();
    if (!checked_elements(view.shape) || row % dtype_block_size(view.dtype) != 0) {
      throw Error("{}: {}: impossible shape {} of {}", origin_, what, shape_text(view.shape),
                  dtype_name(view.dtype));
    }
    offsets.push_back(cursor_.read<uint64_t>(what));
    return view;
  }

  size_t alignment(const GgufFile& file) const {
    const int64_t alignment = file.find<int64_t>("general.alignment").value_or(kDefaultAlignment);
    if (alignment <= 0 || !std::has_single_bit(static_cast<uint64_t>(alignment))) {
      throw Error("{}: key 'general.alignment' is {}, expected a power of two", origin_, alignment);
    }
    return static_cast<size_t>(alignment);
  }

  // Gives every view its bytes, and checks that they are the file's and nobody else's.
  void place_tensors(GgufFile& file, const std::vector<uint64_t>& offsets) {
    const size_t step = alignment(file);
    const size_t padding = (step - cursor_.position() % step) % step;
    const auto data = bytes_.subspan(cursor_.position() + std::min(padding, cursor_.left()));
    for (size_t i = 0; i < views_.size(); ++i) {
      TensorView& view = views_[i];
      const auto size = static_cast<uint64_t>(dtype_bytes(view.dtype, view.elements()));
      if (offsets[i] % step != 0 || offsets[i] > data.size() || size > data.size() - offsets[i]) {
        throw Error(
            "{}: tensor '{}': {} bytes at offset {} do not lie, aligned to {}, within the "
            "file's {} bytes of data",
            origin_, view.name, size, offsets[i], step, data.size());
      }
      view.bytes = data.subspan(offsets[i], size);
    }
    check_overlaps();
    for (TensorView& view : views_) {
      const std::string name = view.name;
      if (!file.tensors.emplace(name, std::move(view)).second) {
        throw Error("{}: tensor '{}' is defined twice", origin_, name);
      }
    }
  }

  void check_overlaps() const {
    std::vector<const TensorView*> order;
    for (const TensorView& view : views_) {
      if (!view.bytes.empty()) order.push_back(&view);
    }
    std::sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) {
      return a->bytes.data() < b->bytes.data();
    });
    for (size_t i = 1; i < order.size(); ++i) {
      if (order[i]->bytes.data() < order[i - 1]->bytes.data() + order[i - 1]->bytes.size()) {
        throw Error("{}: tensors '{}' and '{}' overlap", origin_, order[i - 1]->name,
                    order[i]->name);
      }
    }
  }

  std::span<const std::byte> bytes_;
  const std::string& origin_;
  Cursor cursor_;
  std::vector<TensorView> views_;
};

}  // namespace

GgufFile parse_gguf(std::span<const std::byte> bytes, const std::string& origin) {
  return Parser(bytes, origin).parse();
}

GgufFile open_gguf(const fs::path& path) {
  const auto mapped = MappedFile::open(path);
  GgufFile file = parse_gguf(mapped->bytes(), path.string());
  for (auto& [name, view] : file.tensors) view.file = mapped;
  return file;
}

bool is_gguf(const fs::path& path) {
  std::array<char, 4> magic{};
  std::ifstream stream(path, std::ios::binary);
  return stream.read(magic.data(), magic.size()) &&
         std::string_view(magic.data(), magic.size()) == kMagic;
}

}  // namespace mambify
