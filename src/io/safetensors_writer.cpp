#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/safetensors.h"
#include "io/safetensors_types.h"

namespace mambify {
namespace {

const char* type_name(const TensorToWrite& tensor, const fs::path& path) {
  for (const SafetensorsType& type : kSafetensorsTypes) {
    if (tensor.dtype == type.dtype) return type.name;
  }
  throw Error("cannot write {}: tensor '{}' is {}, which safetensors has no type for",
              path.string(), tensor.name, dtype_name(tensor.dtype));
}

void check_tensor(const TensorToWrite& tensor, const fs::path& path) {
  const auto found = static_cast<int64_t>(tensor.bytes.size());
  if (checked_bytes(tensor.dtype, tensor.shape) != found) {
    throw Error("cannot write {}: tensor '{}' has {} bytes, which do not fit shape {} of {}",
                path.string(), tensor.name, found, shape_text(tensor.shape),
                dtype_name(tensor.dtype));
  }
}

// The JSON header, padded with spaces so that the data behind its 8 bytes of length is aligned.
std::string header_text(const fs::path& path, std::span<const TensorToWrite> tensors,
                        const SafetensorsMetadata& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) {
    auto& object = header["__metadata__"] = nlohmann::ordered_json::object();
    for (const auto& [key, value] : metadata) object[key] = value;
  }
  int64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    const char* type = type_name(tensor, path);
    check_tensor(tensor, path);
    if (tensor.name == "__metadata__" || header.contains(tensor.name)) {
      throw Error("cannot write {}: tensor name '{}' is taken", path.string(), tensor.name);
    }
    const int64_t end = offset + static_cast<int64_t>(tensor.bytes.size());
    header[tensor.name] = {
        {"dtype", type}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  try {
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    return text;
  } catch (const nlohmann::json::exception& error) {
    throw Error("cannot write {}: a name is not UTF-8: {}", path.string(), error.what());
  }
}

}  // namespace

void write_safetensors(const fs::path& path, std::span<const TensorToWrite> tensors,
                       const SafetensorsMetadata& metadata) {
  const std::string header = header_text(path, tensors, metadata);
  const uint64_t header_bytes = header.size();
  write_file_atomically(path, [&](FileWriter& writer) {
    writer.write(std::as_bytes(std::span(&header_bytes, 1)));
    writer.write(header);
    for (const TensorToWrite& tensor : tensors) writer.write(tensor.bytes);
  });
}

}  // namespace mambify
