// Any text as a model's config.json: values of the kinds asked for, a model's sizes, or an Error,
// and nothing else. Two keys that no config has stand for what lies beside one: "mamba_config", the
// hybrid's second file, and "tensors", the names that tell one mixer from another.
#include "core/error.h"
#include "io/json_reader.h"
#include "model/load.h"

namespace {

using mambify::Checkpoint;
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

Checkpoint checkpoint_of(const nlohmann::json& config) {
  Checkpoint checkpoint;
  checkpoint.path = "input";
  checkpoint.config = config;
  const auto mamba = config.find("mamba_config"), tensors = config.find("tensors");
  if (mamba != config.end()) checkpoint.mamba_config = *mamba;
  if (tensors != config.end() && tensors->is_array()) {
    for (const auto& name : *tensors) {
      if (!name.is_string()) continue;
      mambify::TensorView view{
          .name = {}, .dtype = mambify::DType::f32, .shape = {}, .bytes = {}, .file = {}};
      view.name = name;
      checkpoint.tensors.emplace(name, view);
    }
  }
  return checkpoint;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const nlohmann::json config = mambify::parse_python_json(text, "input");
    read_all(JsonReader(config, "input"));
    // The sizes, the table of weights that follows from them, and the first that is not there.
    mambify::load_model(checkpoint_of(config));
  } catch (const mambify::Error&) {
  }
  return 0;
}
