#include "io/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <fstream>
#include <utility>

#include "core/error.h"
#include "io/byte_cursor.h"
#include "io/gguf_types.h"
#include "io/gguf_values.h"

namespace mambify {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr int64_t kDefaultAlignment = 32;
constexpr uint32_t kMaxDimensions = 4;  // ggml's GGML_MAX_DIMS
// The least that one entry can take: lengths and numbers, with an empty name and a one-byte value.
constexpr size_t kMinPairBytes = 8 + 4 + 1, kMinTensorBytes = 8 + 4 + 4 + 8;

// A tensor before it is known where the data begins.
struct TensorInfo {
  TensorView view;
  uint64_t offset;
};

void read_version(ByteCursor& cursor) {
  const auto magic = cursor.read<std::array<char, kMagic.size()>>("magic number");
  if (std::string_view(magic.data(), magic.size()) != kMagic) {
    throw Error("{}: not a GGUF file: it does not start with '{}'", cursor.origin(), kMagic);
  }
  const auto version = cursor.read<uint32_t>("version");
  if (version != 2 && version != 3) {
    const bool swapped = version != 0 && (version & 0xffff) == 0;
    throw Error("{}: GGUF version {}{}, expected 2 or 3", cursor.origin(), version,
                swapped ? " (a big-endian file?)" : "");
  }
}

void read_pair(ByteCursor& cursor, GgufFile& file) {
  std::string key = cursor.read_string("metadata key");
  const std::string what = fmt::format("key '{}'", key);
  GgufValue value = read_gguf_value(cursor, what);
  if (!file.metadata.emplace(std::move(key), std::move(value)).second) {
    throw Error("{}: {} appears twice", cursor.origin(), what);
  }
}

TensorInfo read_tensor_info(ByteCursor& cursor) {
  TensorView view;
  view.name = cursor.read_string("tensor name");
  const std::string what = fmt::format("tensor '{}'", view.name);
  const auto dimensions = cursor.read<uint32_t>(what);
  if (dimensions > kMaxDimensions) {
    throw Error("{}: {}: {} dimensions, at most {} are possible", cursor.origin(), what, dimensions,
                kMaxDimensions);
  }
  for (uint32_t i = 0; i < dimensions; ++i) view.shape.push_back(read_gguf_u64(cursor, what));
  std::reverse(view.shape.begin(), view.shape.end());
  const auto type = cursor.read<uint32_t>(what);
  view.dtype = gguf_dtype(type, fmt::format("{}: {}", cursor.origin(), what));
  if (!checked_bytes(view.dtype, view.shape)) {
    throw Error("{}: {}: impossible shape {} of {}", cursor.origin(), what, shape_text(view.shape),
                dtype_name(view.dtype));
  }
  const auto offset = cursor.read<uint64_t>(what);
  return {std::move(view), offset};
}

size_t alignment_of(const GgufFile& file) {
  const int64_t alignment = file.find<int64_t>("general.alignment").value_or(kDefaultAlignment);
  if (alignment <= 0 || !std::has_single_bit(static_cast<uint64_t>(alignment))) {
    throw Error("{}: key 'general.alignment' is {}, expected a power of two", file.path.string(),
                alignment);
  }
  return static_cast<size_t>(alignment);
}

std::span<const std::byte> bytes_of(const TensorInfo& info, std::span<const std::byte> data,
                                    size_t alignment, const std::string& origin) {
  const auto size = static_cast<uint64_t>(dtype_bytes(info.view.dtype, info.view.elements()));
  if (info.offset > data.size() || size > data.size() - info.offset) {
    throw Error("{}: tensor '{}': {} bytes at offset {} end outside the file's {} bytes of data",
                origin, info.view.name, size, info.offset, data.size());
  }
  if (info.offset % alignment != 0) {
    throw Error("{}: tensor '{}': offset {} is not a multiple of the alignment {}", origin,
                info.view.name, info.offset, alignment);
  }
  return data.subspan(info.offset, size);
}

void check_overlaps(const TensorMap& tensors, const std::string& origin) {
  std::vector<const TensorView*> order;
  for (const auto& [name, view] : tensors) {
    if (!view.bytes.empty()) order.push_back(&view);
  }
  std::ranges::sort(order, {}, [](const TensorView* view) { return view->bytes.data(); });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->bytes.data() < order[i - 1]->bytes.data() + order[i - 1]->bytes.size()) {
      throw Error("{}: tensors '{}' and '{}' overlap", origin, order[i - 1]->name, order[i]->name);
    }
  }
}

}  // namespace

GgufFile parse_gguf(std::span<const std::byte> bytes, const std::string& origin) {
  GgufFile file;
  file.path = origin;
  ByteCursor cursor(bytes, origin);
  read_version(cursor);
  const size_t tensor_count = cursor.read_count(kMinTensorBytes, "tensor count");
  const size_t pair_count = cursor.read_count(kMinPairBytes, "metadata count");
  for (size_t i = 0; i < pair_count; ++i) read_pair(cursor, file);
  std::vector<TensorInfo> infos;
  for (size_t i = 0; i < tensor_count; ++i) infos.push_back(read_tensor_info(cursor));

  const size_t alignment = alignment_of(file);
  const size_t padding = (alignment - cursor.position() % alignment) % alignment;
  const auto data = bytes.subspan(cursor.position() + std::min(padding, cursor.left()));
  for (TensorInfo& info : infos) {
    info.view.bytes = bytes_of(info, data, alignment, origin);
    const std::string name = info.view.name;
    if (!file.tensors.emplace(name, std::move(info.view)).second) {
      throw Error("{}: tensor '{}' is defined twice", origin, name);
    }
  }
  check_overlaps(file.tensors, origin);
  return file;
}

GgufFile open_gguf(const fs::path& path) {
  const auto mapped = MappedFile::open(path);
  GgufFile file = parse_gguf(mapped->bytes(), path.string());
  for (auto& [name, view] : file.tensors) view.file = mapped;
  return file;
}

bool is_gguf(const fs::path& path) {
  std::array<char, kMagic.size()> magic{};
  std::ifstream stream(path, std::ios::binary);
  return stream.read(magic.data(), magic.size()) &&
         std::string_view(magic.data(), magic.size()) == kMagic;
}

}  // namespace mambify
