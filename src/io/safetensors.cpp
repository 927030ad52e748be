#include "io/safetensors.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "io/json_reader.h"
#include "io/safetensors_types.h"

namespace mambify {
namespace {

using nlohmann::json;

// The limit of the reference implementation: keeps a lying length from costing memory.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

DType read_dtype(const JsonReader& entry) {
  const auto name = entry.require<std::string>("dtype");
  for (const SafetensorsType& type : kSafetensorsTypes) {
    if (name == type.name) return type.dtype;
  }
  throw Error("{}: unsupported dtype '{}'", entry.origin(), name);
}

TensorView read_entry(const std::string& name, const JsonReader& entry,
                      std::span<const std::byte> data) {
  TensorView view{.name = name,
                  .dtype = read_dtype(entry),
                  .shape = entry.require<std::vector<int64_t>>("shape"),
                  .bytes = {},
                  .file = nullptr};
  const auto offsets = entry.require<std::vector<int64_t>>("data_offsets");
  if (offsets.size() != 2 || offsets[0] < 0 || offsets[0] > offsets[1] ||
      static_cast<uint64_t>(offsets[1]) > data.size()) {
    throw Error("{}: data_offsets {} do not lie within the file's {} bytes of data", entry.origin(),
                shape_text(offsets), data.size());
  }
  const int64_t found = offsets[1] - offsets[0];
  if (checked_bytes(view.dtype, view.shape) != found) {
    throw Error("{}: {} bytes of data do not fit shape {} of {}", entry.origin(), found,
                shape_text(view.shape), dtype_name(view.dtype));
  }
  view.bytes = data.subspan(static_cast<size_t>(offsets[0]), static_cast<size_t>(found));
  return view;
}

// As the reference implementation demands: laid end to end, the tensors are the whole data.
void check_layout(const TensorMap& tensors, std::span<const std::byte> data,
                  const std::string& origin) {
  std::vector<const TensorView*> order;
  for (const auto& [name, view] : tensors) order.push_back(&view);
  std::sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) {
    return std::pair(a->bytes.data(), a->bytes.size()) <
           std::pair(b->bytes.data(), b->bytes.size());
  });
  const std::byte* end = data.data();
  for (const TensorView* view : order) {
    if (view->bytes.data() != end) {
      throw Error("{}: tensor '{}' starts at byte {} of the data, expected {}: it {}", origin,
                  view->name, view->bytes.data() - data.data(), end - data.data(),
                  view->bytes.data() < end ? "overlaps another tensor" : "leaves a gap");
    }
    end = view->bytes.data() + view->bytes.size();
  }
  if (end != data.data() + data.size()) {
    throw Error("{}: {} bytes of data, but its tensors take {}", origin, data.size(),
                end - data.data());
  }
}

}  // namespace

TensorMap parse_safetensors(std::span<const std::byte> bytes, const std::string& origin) {
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof(header_bytes)) {
    throw Error("{}: {} bytes are too few for a safetensors file", origin, bytes.size());
  }
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  const auto rest = bytes.subspan(sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes || header_bytes > rest.size()) {
    throw Error(
        "{}: no safetensors file: header of {} bytes, the file has {} left and {} are "
        "allowed",
        origin, header_bytes, rest.size(), kMaxHeaderBytes);
  }
  const auto data = rest.subspan(header_bytes);
  const json header =
      parse_json({reinterpret_cast<const char*>(rest.data()), header_bytes}, origin);
  if (!header.is_object()) throw Error("{}: the header is no JSON object", origin);

  TensorMap tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const JsonReader reader(entry, fmt::format("{}: tensor '{}'", origin, name));
    tensors.emplace(name, read_entry(name, reader, data));
  }
  check_layout(tensors, data, origin);
  return tensors;
}

TensorMap open_safetensors(const fs::path& path) {
  const auto file = MappedFile::open(path);
  TensorMap tensors = parse_safetensors(file->bytes(), path.string());
  for (auto& [name, view] : tensors) view.file = file;
  return tensors;
}

}  // namespace mambify
