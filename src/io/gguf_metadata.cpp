// Typed access to a GGUF file's metadata.
#include "core/error.h"
#include "io/gguf.h"

namespace mambify {
namespace {

// In the order of GgufValue's alternatives.
constexpr const char* kKinds[] = {"true or false",
                                  "an integer",
                                  "a number with a fraction",
                                  "a string",
                                  "a list of true or false",
                                  "a list of integers",
                                  "a list of numbers with fractions",
                                  "a list of strings"};
static_assert(std::size(kKinds) == std::variant_size_v<GgufValue>);

template <typename T>
const char* kind_of() {
  return kKinds[GgufValue(T{}).index()];
}

template <typename T>
const T* find_value(const GgufFile& file, const std::string& key) {
  const auto entry = file.metadata.find(key);
  if (entry == file.metadata.end()) return nullptr;
  const T* value = std::get_if<T>(&entry->second);
  if (value == nullptr) {
    throw Error("{}: key '{}' is {}, expected {}", file.path.string(), key,
                kKinds[entry->second.index()], kind_of<T>());
  }
  return value;
}

}  // namespace

template <typename T>
const T& GgufFile::require(const std::string& key) const {
  const T* value = find_value<T>(*this, key);
  if (value == nullptr) {
    throw Error("{}: key '{}' is missing, expected {}", path.string(), key, kind_of<T>());
  }
  return *value;
}

template <typename T>
std::optional<T> GgufFile::find(const std::string& key) const {
  const T* value = find_value<T>(*this, key);
  return value == nullptr ? std::nullopt : std::optional<T>(*value);
}

#define MAMBIFY_GGUF_KIND(T)                                     \
  template const T& GgufFile::require(const std::string&) const; \
  template std::optional<T> GgufFile::find(const std::string&) const;
MAMBIFY_GGUF_KIND(bool)
MAMBIFY_GGUF_KIND(int64_t)
MAMBIFY_GGUF_KIND(double)
MAMBIFY_GGUF_KIND(std::string)
MAMBIFY_GGUF_KIND(std::vector<bool>)
MAMBIFY_GGUF_KIND(std::vector<int64_t>)
MAMBIFY_GGUF_KIND(std::vector<double>)
MAMBIFY_GGUF_KIND(std::vector<std::string>)
#undef MAMBIFY_GGUF_KIND

}  // namespace mambify
