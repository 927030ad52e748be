// Any bytes as a GGUF file: metadata, tensors and a model that can be read, or an Error.
#include "io/gguf.h"
#include "model/load.h"
#include "read_tensors.h"

namespace {

template <typename T>
size_t answers(const mambify::GgufFile& file, const std::string& key) {
  try {
    return file.find<T>(key).has_value() ? 1 : 0;
  } catch (const mambify::Error&) {
    return 0;
  }
}

// Asks for every key as every kind of value; all but one ask wrongly.
template <typename... Kinds>
void read_metadata(const mambify::GgufFile& file, const std::variant<Kinds...>*) {
  for (const auto& entry : file.metadata) {
    if ((answers<Kinds>(file, entry.first) + ...) != 1) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file = mambify::parse_gguf(std::as_bytes(std::span(data, size)), "input");
    read_metadata(file, static_cast<const mambify::GgufValue*>(nullptr));
    mambify::read_tensors(file.tensors);
    mambify::load_model(
        {.path = "input", .tensors = file.tensors, .gguf = file, .config = {}, .mamba_config = {}});
  } catch (const mambify::Error&) {
  }
  return 0;
}
