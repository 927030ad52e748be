#include "io/checkpoint.h"

#include <set>

#include "core/error.h"
#include "io/json_reader.h"
#include "io/safetensors.h"

namespace mambify {
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

using ShardOf = std::map<std::string, std::string>;

ShardOf read_weight_map(const fs::path& index_path) {
  const nlohmann::json index = read_json(index_path);
  const JsonReader map = JsonReader(index, index_path.string()).object("weight_map");
  ShardOf shard_of;
  for (const auto& [tensor, value] : map.json().items()) {
    const auto shard = map.require<std::string>(tensor);
    if (shard.empty() || shard == "." || shard == ".." || fs::path(shard).filename() != shard) {
      throw Error("{}: tensor '{}' is said to be in '{}', expected a file name without folders",
                  map.origin(), tensor, shard);
    }
    shard_of.emplace(tensor, shard);
  }
  return shard_of;
}

TensorMap open_shards(const fs::path& folder) {
  const fs::path index_path = folder / kIndex;
  const ShardOf shard_of = read_weight_map(index_path);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : shard_of) shards.insert(shard);

  TensorMap tensors;
  std::map<std::string, std::string> found_in;
  for (const std::string& shard : shards) {
    if (!fs::exists(folder / shard)) {
      throw Error("{}: shard '{}' is missing", index_path.string(), shard);
    }
    for (auto& [name, view] : open_safetensors(folder / shard)) {
      const auto [first, is_new] = found_in.emplace(name, shard);
      if (!is_new) {
        throw Error("{}: tensor '{}' is in two shards, '{}' and '{}'", index_path.string(), name,
                    first->second, shard);
      }
      tensors.emplace(name, std::move(view));
    }
  }
  for (const auto& [tensor, shard] : shard_of) {
    const auto found = found_in.find(tensor);
    if (found == found_in.end() || found->second != shard) {
      throw Error("{}: tensor '{}' is said to be in '{}', but it is {}", index_path.string(),
                  tensor, shard,
                  found == found_in.end() ? "nowhere" : "in '" + found->second + "'");
    }
  }
  return tensors;
}

Checkpoint open_folder(const fs::path& path) {
  Checkpoint checkpoint;
  checkpoint.path = path;
  if (!fs::exists(path / "config.json")) {
    throw Error("{}: no config.json: expected a GGUF file or a folder in Hugging Face layout",
                path.string());
  }
  checkpoint.config = read_json(path / "config.json");
  if (fs::exists(path / "mamba_config.json")) {
    checkpoint.mamba_config = read_json(path / "mamba_config.json");
  }
  if (fs::exists(path / kSingle)) {
    checkpoint.tensors = open_safetensors(path / kSingle);
  } else if (fs::exists(path / kIndex)) {
    checkpoint.tensors = open_shards(path);
  } else {
    throw Error("{}: no weights: neither {} nor {} is there", path.string(), kSingle, kIndex);
  }
  return checkpoint;
}

}  // namespace

const TensorView& Checkpoint::require(const std::string& name) const {
  const auto tensor = tensors.find(name);
  if (tensor == tensors.end()) {
    throw Error("{}: tensor '{}' is missing", path.string(), name);
  }
  return tensor->second;
}

Checkpoint open_checkpoint(const fs::path& path) {
  if (!fs::exists(path)) throw Error("{} does not exist", path.string());
  if (fs::is_directory(path)) return open_folder(path);
  if (!is_gguf(path)) {
    throw Error("{}: expected a GGUF file or a folder in Hugging Face layout", path.string());
  }
  Checkpoint checkpoint;
  checkpoint.path = path;
  checkpoint.gguf = open_gguf(path);
  checkpoint.tensors = checkpoint.gguf->tensors;
  return checkpoint;
}

}  // namespace mambify
