#include "shape.h"

#include <ATen/Context.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <toml++/toml.h>

#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "convert/convert.h"
#include "convert/layer_plan.h"
#include "core/error.h"

namespace mambify {
namespace {

// Keys of one file, each taken once; what nobody took is unknown.
class ShapeReader {
 public:
  explicit ShapeReader(const fs::path& file) : file_(file.string()) {
    try {
      table_ = toml::parse(read_text_file(file), file_);
    } catch (const toml::parse_error& error) {
      throw Error("{}:{}: {}", file_, error.source().begin.line, error.description());
    }
  }

  int64_t size(const char* key, int64_t fallback = 0) {
    constexpr int64_t kLargest = 1 << 24;
    known_.insert(key);
    const int64_t value = table_[key].value_or(fallback);
    if (value < 1 || value > kLargest) {
      throw Error("{}: {} is {}, expected a whole number from 1 to {}", file_, key,
                  table_.contains(key) ? std::to_string(value) : "absent", kLargest);
    }
    return value;
  }

  template <typename T>
  T value(const char* key, T fallback) {
    known_.insert(key);
    const auto found = table_[key].value<T>();
    if (!found && table_.contains(key)) throw Error("{}: {} has the wrong type", file_, key);
    return found.value_or(fallback);
  }

  std::vector<int64_t> list(const char* key) {
    known_.insert(key);
    std::vector<int64_t> values;
    if (!table_.contains(key)) return values;
    const toml::array* array = table_[key].as_array();
    if (array == nullptr || !(array->empty() || array->is_homogeneous<int64_t>())) {
      throw Error("{}: {} is no list of whole numbers", file_, key);
    }
    for (const toml::node& node : *array) values.push_back(*node.value<int64_t>());
    return values;
  }

  template <typename... Args>
  [[noreturn]] void reject(fmt::format_string<Args...> format, Args&&... args) const {
    throw Error("{}: {}", file_, fmt::format(format, std::forward<Args>(args)...));
  }

  void reject_unknown() const {
    for (auto&& [key, node] : table_) {
      if (!known_.contains(std::string(key.str()))) {
        throw Error("{}: unknown key \"{}\"", file_, key.str());
      }
    }
  }

 private:
  std::string file_;
  toml::table table_;
  std::set<std::string> known_;
};

// Draws parameters of one dtype.
class RandomParameters {
 public:
  RandomParameters(const ModelConfig& config, at::ScalarType dtype)
      : config_(config), dtype_(dtype) {}

  at::Tensor matrix(int64_t rows, int64_t columns) const {
    return at::randn({rows, columns}).div_(std::sqrt(static_cast<double>(columns))).to(dtype_);
  }
  at::Tensor ones(int64_t size) const { return at::ones({size}, dtype_); }

  Mixer mixer(MixerKind kind) const {
    switch (kind) {
      case MixerKind::attention:
        return attention();
      case MixerKind::mamba1:
        return mamba1();
      case MixerKind::mamba2:
        return mamba2();
    }
    throw Error("no such mixer");
  }

  Block block(MixerKind kind) const {
    const int64_t width = config_.d_model, inner = config_.intermediate_size;
    Block block{.input_norm = ones(width), .mixer = mixer(kind), .post_norm = {}, .mlp = {}};
    if (inner == 0) return block;
    block.post_norm = ones(width);
    block.mlp = {matrix(inner, width), matrix(inner, width), matrix(width, inner)};
    return block;
  }

 private:
  Attention attention() const {
    const AttentionConfig& sizes = config_.attention;
    const int64_t width = config_.d_model, queries = sizes.n_heads * sizes.head_dim,
                  keys = sizes.n_kv_heads * sizes.head_dim;
    Attention mixer;
    mixer.q_proj = matrix(queries, width);
    mixer.k_proj = matrix(keys, width);
    mixer.v_proj = matrix(keys, width);
    mixer.o_proj = matrix(width, queries);
    return mixer;
  }

  Mamba1 mamba1() const {
    const Mamba1Config& sizes = config_.mamba1;
    const int64_t source = sizes.selects_from_x ? sizes.d_inner : config_.d_model;
    Mamba1 mixer;
    mixer.in_proj_x = matrix(sizes.d_xb, config_.d_model);
    mixer.in_proj_z = matrix(sizes.d_inner, config_.d_model);
    mixer.conv_weight = matrix(sizes.d_inner, sizes.d_conv);
    mixer.conv_bias = ones(sizes.d_inner);
    mixer.B_proj = matrix(sizes.b_groups * sizes.d_state, source);
    mixer.C_proj = matrix(sizes.c_groups * sizes.d_state, source);
    mixer.dt_proj_down = matrix(sizes.dt_rank, source);
    mixer.dt_proj = matrix(sizes.d_inner, sizes.dt_rank);
    mixer.dt_bias = at::full({sizes.d_inner}, -3.0);
    mixer.A_log = at::rand({sizes.d_inner, sizes.d_state});
    mixer.D = at::ones({sizes.d_inner});
    mixer.out_proj = matrix(config_.d_model, sizes.d_inner);
    return mixer;
  }

  Mamba2 mamba2() const {
    const Mamba2Config& sizes = config_.mamba2;
    Mamba2 mixer;
    mixer.in_proj = matrix(sizes.in_proj_rows(), config_.d_model);
    mixer.conv_weight = matrix(sizes.conv_channels(), sizes.d_conv);
    mixer.conv_bias = ones(sizes.conv_channels());
    mixer.dt_bias = at::full({sizes.n_heads}, -3.0);
    mixer.A_log = at::rand({sizes.n_heads});
    mixer.D = at::ones({sizes.n_heads});
    mixer.norm = ones(sizes.d_inner());
    mixer.out_proj = matrix(config_.d_model, sizes.d_inner());
    return mixer;
  }

  const ModelConfig& config_;
  at::ScalarType dtype_;
};

// A Llama, some of whose layers may have been converted.
void read_llama(ShapeReader& reader, ModelConfig& config) {
  config.intermediate_size = reader.size("intermediate_size");
  config.attention.n_heads = reader.size("n_heads");
  config.attention.n_kv_heads = reader.size("n_kv_heads", config.attention.n_heads);
  config.attention.head_dim = reader.size("head_dim", config.d_model / config.attention.n_heads);
  if (config.attention.n_heads % config.attention.n_kv_heads != 0) {
    reader.reject("n_heads {} is not a multiple of n_kv_heads {}", config.attention.n_heads,
                  config.attention.n_kv_heads);
  }
  const auto mixer = reader.value<std::string>("mixer", "attention");
  ConvertOptions options;
  options.attention_layers = reader.list("attention_layers");
  if (mixer == "attention") return;
  options.mixer = parse_mixer_kind(mixer);
  config = converted_config(config, options);
}

// The models of mamba-ssm: blocks without an MLP.
void read_mamba1(ShapeReader& reader, ModelConfig& config) {
  config.layout = Layout::mamba1;
  Mamba1Config& sizes = config.mamba1;
  sizes.d_inner = sizes.d_xb = config.d_model * reader.size("expand", 2);
  sizes.d_state = reader.size("d_state", 16);
  sizes.dt_rank = reader.size("dt_rank", (config.d_model + 15) / 16);
  sizes.selects_from_x = true;
}

void read_mamba2(ShapeReader& reader, ModelConfig& config) {
  config.layout = Layout::mamba2;
  Mamba2Config& sizes = config.mamba2;
  sizes.head_dim = reader.size("head_dim", 64);
  sizes.d_state = reader.size("d_state", 128);
  sizes.n_heads = sizes.x_groups = config.d_model * reader.size("expand", 2) / sizes.head_dim;
  sizes.b_groups = sizes.c_groups = reader.size("n_groups", 1);
  sizes.norm_group_size = sizes.d_inner();
  if (sizes.n_heads < 1 || sizes.n_heads % sizes.b_groups != 0) {
    reader.reject("{} heads of {} in {} groups", sizes.n_heads, sizes.head_dim, sizes.b_groups);
  }
}

}  // namespace

Model random_model(const fs::path& shape, at::ScalarType dtype, uint64_t seed, bool alike) {
  ShapeReader reader(shape);
  Model model;
  ModelConfig& config = model.config;
  config.vocab_size = reader.size("vocab_size");
  config.d_model = reader.size("d_model");
  config.tie_embeddings = reader.value<bool>("tie_embeddings", false);
  const auto architecture = reader.value<std::string>("architecture", "llama");
  const std::map<std::string, std::pair<MixerKind, void (*)(ShapeReader&, ModelConfig&)>> kinds = {
      {"llama", {MixerKind::attention, read_llama}},
      {"mamba1", {MixerKind::mamba1, read_mamba1}},
      {"mamba2", {MixerKind::mamba2, read_mamba2}}};
  const auto found = kinds.find(architecture);
  if (found == kinds.end()) {
    reader.reject("architecture \"{}\", expected llama, mamba1 or mamba2", architecture);
  }
  config.layers.assign(reader.size("n_layer"), found->second.first);
  found->second.second(reader, config);
  reader.reject_unknown();

  at::manual_seed(seed);
  const RandomParameters random(config, dtype);
  std::map<MixerKind, Block> first;
  for (const MixerKind kind : config.layers) {
    if (alike && first.contains(kind)) {
      model.blocks.push_back(first.at(kind));
    } else {
      first[kind] = model.blocks.emplace_back(random.block(kind));
    }
  }
  model.embedding = random.matrix(config.vocab_size, config.d_model);
  model.final_norm = random.ones(config.d_model);
  model.lm_head =
      config.tie_embeddings ? model.embedding : random.matrix(config.vocab_size, config.d_model);
  return model;
}

}  // namespace mambify
