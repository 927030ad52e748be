// Any text as a model's config.json: values of the kinds asked for, or an Error, and nothing else.
#include "core/error.h"
#include "io/json_reader.h"

namespace {

using mambify::JsonReader;

template <typename T>
void ask(const JsonReader& reader, const std::string& key) {
  try {
    reader.find<T>(key);
  } catch (const mambify::Error&) {
  }
}

// Asks for one key as every kind of value; all but one or two ask wrongly.
template <typename... Kinds>
void ask_for(const JsonReader& reader, const std::string& key) {
  (ask<Kinds>(reader, key), ...);
}

void read_all(const JsonReader& reader) {
  for (const auto& [key, value] : reader.json().items()) {
    ask_for<bool, int64_t, double, std::string, std::vector<bool>, std::vector<int64_t>,
            std::vector<double>, std::vector<std::string>>(reader, key);
    if (value.is_object()) read_all(reader.object(key));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const nlohmann::json config = mambify::parse_python_json(text, "input");
    read_all(JsonReader(config, "input"));
  } catch (const mambify::Error&) {
  }
  return 0;
}
