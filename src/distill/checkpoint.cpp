#include "distill/checkpoint.h"

#include <ATen/ops/from_blob.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "io/json_reader.h"
#include "io/safetensors.h"
#include "model/load.h"

namespace mambify {
namespace {

constexpr size_t kKept = 2;
constexpr std::string_view kPrefix = "step-";
constexpr int kFormat = 2;

// Every field of the state by its name in state.json.
template <typename Self, typename Visit>
void for_each_field(Self& state, Visit&& visit) {
  visit("phase", state.phase);
  visit("phase_step", state.phase_step);
  visit("phase_seconds", state.phase_seconds);
  visit("step", state.step);
  visit("tokens", state.tokens);
  visit("data_position", state.data_position);
  visit("stage_position", state.stage_position);
  visit("skipped", state.skipped);
  visit("skipped_in_row", state.skipped_in_row);
  visit("metrics_bytes", state.metrics_bytes);
}

// Complete checkpoints, the newest last. Half-written ones end in ".tmp" and do not parse.
std::vector<std::pair<int64_t, fs::path>> list_checkpoints(const fs::path& run) {
  std::vector<std::pair<int64_t, fs::path>> found;
  if (!fs::is_directory(run / "checkpoints")) return found;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints")) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(kPrefix)) continue;
    int64_t step = 0;
    const char* end = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, step);
    if (parsed.ec == std::errc() && parsed.ptr == end) found.emplace_back(step, entry.path());
  }
  std::ranges::sort(found);
  return found;
}

// Older checkpoints, and what a kill left of half-written ones.
void remove_all_but_newest(const fs::path& run) {
  const auto all = list_checkpoints(run);
  std::set<fs::path> kept;
  for (size_t i = all.size() - std::min(all.size(), kKept); i < all.size(); ++i) {
    kept.insert(all[i].second);
  }
  std::vector<fs::path> old;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints")) {
    const bool ours = entry.path().filename().string().starts_with(kPrefix);
    if (ours && !kept.contains(entry.path())) old.push_back(entry.path());
  }
  for (const fs::path& path : old) fs::remove_all(path);
}

void write_moments(const fs::path& file, AdamW& optimizer) {
  std::vector<TensorToWrite> entries;
  std::vector<at::Tensor> on_host;
  optimizer.for_each_moment([&](const std::string& name, at::Tensor& device_moment) {
    const at::Tensor& moment = on_host.emplace_back(device_moment.cpu());
    entries.push_back({name,
                       DType::f32,
                       moment.sizes().vec(),
                       {static_cast<const std::byte*>(moment.data_ptr()), moment.nbytes()}});
  });
  write_safetensors(file, entries);
}

}  // namespace

void save_checkpoint(const fs::path& run, const TrainingState& state, uint64_t fingerprint,
                     const Model& student, AdamW* optimizer) {
  fs::create_directories(run / "checkpoints");
  const fs::path path = run / "checkpoints" / fmt::format("step-{}", state.step);
  write_directory_atomically(path, [&](const fs::path& folder) {
    fs::create_directory(folder / "model");
    Model on_host = student;  // handles
    to(on_host, at::kCPU, at::kFloat);
    save_model(on_host, folder / "model");
    nlohmann::json json = {{"format", kFormat},
                           {"recipe", fmt::format("{:016x}", fingerprint)},
                           {"optimizer_steps", optimizer == nullptr ? 0 : optimizer->steps()}};
    for_each_field(state, [&](const char* name, const auto& value) { json[name] = value; });
    if (optimizer != nullptr) write_moments(folder / "optimizer.safetensors", *optimizer);
    write_file_atomically(folder / "state.json", json.dump(2) + "\n");
  });
  remove_all_but_newest(run);
}

std::optional<Checkpointed> newest_checkpoint(const fs::path& run, uint64_t fingerprint) {
  const auto all = list_checkpoints(run);
  if (all.empty()) return std::nullopt;
  Checkpointed checkpoint{all.back().second, {}};
  const fs::path file = checkpoint.folder / "state.json";
  const nlohmann::json json = read_json(file);
  const JsonReader reader(json, file.string());
  if (const auto format = reader.require<int64_t>("format"); format != kFormat) {
    throw Error("{}: format {}, this program reads {}", file.string(), format, kFormat);
  }
  const std::string expected = fmt::format("{:016x}", fingerprint);
  if (const auto found = reader.require<std::string>("recipe"); found != expected) {
    throw Error(
        "{}: written by a run of another recipe (fingerprint {}, this one has {}); resume "
        "with the recipe and options it was started with, see {}",
        file.string(), found, expected, (run / "recipe.toml").string());
  }
  for_each_field(checkpoint.state,
                 [&]<typename T>(const char* name, T& value) { value = reader.require<T>(name); });
  return checkpoint;
}

Model load_student(const Checkpointed& checkpoint) {
  return load_model(checkpoint.folder / "model");
}

void load_optimizer(const Checkpointed& checkpoint, AdamW& optimizer) {
  const fs::path file = checkpoint.folder / "optimizer.safetensors";
  const TensorMap tensors = open_safetensors(file);
  optimizer.for_each_moment([&](const std::string& name, at::Tensor& moment) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) throw Error("{}: tensor {} is missing", file.string(), name);
    const TensorView& view = found->second;
    if (view.dtype != DType::f32 || at::IntArrayRef(view.shape) != moment.sizes()) {
      throw Error("{}: tensor {} is {} {}, expected {} {}", file.string(), name,
                  dtype_name(view.dtype), shape_text(view.shape), dtype_name(DType::f32),
                  shape_text(moment.sizes()));
    }
    moment.copy_(at::from_blob(const_cast<std::byte*>(view.bytes.data()), moment.sizes()));
  });
  const nlohmann::json json = read_json(checkpoint.folder / "state.json");
  optimizer.set_steps(JsonReader(json, (checkpoint.folder / "state.json").string())
                          .require<int64_t>("optimizer_steps"));
}

}  // namespace mambify
