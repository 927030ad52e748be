#include "shape.h"

#include <ATen/Context.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <toml++/toml.h>

#include <cmath>
#include <set>

#include "convert/convert.h"
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

at::Tensor random_matrix(int64_t rows, int64_t columns) {
  return at::randn({rows, columns}).div_(std::sqrt(static_cast<double>(columns)));
}

Model random_llama(const ModelConfig& config) {
  Model model;
  model.config = config;
  const AttentionConfig& sizes = config.attention;
  const int64_t width = config.d_model, queries = sizes.n_heads * sizes.head_dim,
                keys = sizes.n_kv_heads * sizes.head_dim;
  model.embedding = random_matrix(config.vocab_size, width);
  for (int64_t i = 0; i < config.n_layer(); ++i) {
    Attention attention;
    attention.q_proj = random_matrix(queries, width);
    attention.k_proj = random_matrix(keys, width);
    attention.v_proj = random_matrix(keys, width);
    attention.o_proj = random_matrix(width, queries);
    model.blocks.push_back({at::ones({width}), std::move(attention), at::ones({width}),
                            Mlp{random_matrix(config.intermediate_size, width),
                                random_matrix(config.intermediate_size, width),
                                random_matrix(width, config.intermediate_size)}});
  }
  model.final_norm = at::ones({width});
  model.lm_head = config.tie_embeddings ? model.embedding : random_matrix(config.vocab_size, width);
  return model;
}

}  // namespace

Model random_model(const fs::path& shape, at::ScalarType dtype, uint64_t seed) {
  ShapeReader reader(shape);
  ModelConfig config;
  config.vocab_size = reader.size("vocab_size");
  config.d_model = reader.size("d_model");
  config.intermediate_size = reader.size("intermediate_size");
  config.tie_embeddings = reader.value<bool>("tie_embeddings", false);
  config.layers.assign(reader.size("n_layer"), MixerKind::attention);
  config.attention.n_heads = reader.size("n_heads");
  config.attention.n_kv_heads = reader.size("n_kv_heads", config.attention.n_heads);
  config.attention.head_dim = reader.size("head_dim", config.d_model / config.attention.n_heads);
  if (config.attention.n_heads % config.attention.n_kv_heads != 0) {
    throw Error("{}: n_heads {} is not a multiple of n_kv_heads {}", shape.string(),
                config.attention.n_heads, config.attention.n_kv_heads);
  }
  const std::string mixer = reader.value<std::string>("mixer", "attention");
  ConvertOptions options;
  options.attention_layers = reader.list("attention_layers");
  options.seed = seed;
  reader.reject_unknown();

  at::manual_seed(seed);
  Model model = random_llama(config);
  if (mixer != "attention") {
    options.mixer = parse_mixer_kind(mixer);
    convert_in_place(model, options);
  }
  to(model, at::kCPU, dtype);
  return model;
}

}  // namespace mambify
