#include "convert/layer_plan.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>

#include "core/error.h"
#include "io/json_reader.h"

namespace mambify {
namespace {

std::optional<int64_t> parse_integer(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

// The attention layers in the order in which to convert them.
std::vector<int64_t> conversion_order(const fs::path& path, int64_t n_layer) {
  const nlohmann::json json = read_json(path);
  const JsonReader reader(json, path.string());
  const auto layers = reader.require_between("layers", 1, int64_t{1} << 20);
  if (layers != n_layer) {
    throw Error("{}: measured on a model of {} layers, this one has {}", path.string(), layers,
                n_layer);
  }
  auto order = reader.require<std::vector<int64_t>>("order");
  std::vector<bool> seen(n_layer, false);
  for (const int64_t layer : order) {
    if (layer < 0 || layer >= n_layer || seen[layer]) {
      throw Error("{}: key 'order' holds layer {}, expected each of 0 to {} at most once",
                  path.string(), layer, n_layer - 1);
    }
    seen[layer] = true;
  }
  return order;
}

}  // namespace

LayerFraction parse_layer_fraction(std::string_view text) {
  const size_t slash = text.find('/');
  const auto numerator = parse_integer(text.substr(0, slash));
  const auto denominator = slash == std::string_view::npos ? std::optional<int64_t>(1)
                                                           : parse_integer(text.substr(slash + 1));
  if (!numerator || !denominator || *denominator == 0 || *numerator > *denominator) {
    throw UsageError("'{}' is no fraction of the layers, expected one such as 1/4, 3/8, 0 or 1",
                     text);
  }
  return {*numerator, *denominator};
}

std::vector<int64_t> parse_layer_list(std::string_view text, int64_t n_layer) {
  std::vector<int64_t> layers;
  if (text.empty() || text == "none") return layers;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    const auto layer = parse_integer(item);
    if (!layer || *layer >= n_layer) {
      throw UsageError("'{}' is no layer of this model, expected 0 to {}", item, n_layer - 1);
    }
    layers.push_back(*layer);
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
  }
  std::sort(layers.begin(), layers.end());
  const auto twice = std::adjacent_find(layers.begin(), layers.end());
  if (twice != layers.end()) throw UsageError("layer {} is listed twice", *twice);
  return layers;
}

int64_t kept_count(LayerFraction fraction, int64_t n_layer) {
  if (fraction.numerator == 0) return 0;
  if (fraction.numerator == 1) return n_layer / fraction.denominator;
  return (2 * n_layer * fraction.numerator + fraction.denominator) / (2 * fraction.denominator);
}

std::vector<int64_t> evenly_kept_layers(LayerFraction fraction, int64_t n_layer) {
  const int64_t count = kept_count(fraction, n_layer);
  std::vector<int64_t> layers;
  for (int64_t i = 1; i <= count; ++i) {
    layers.push_back(fraction.numerator == 1 ? i * fraction.denominator - 1
                                             : i * n_layer / count - 1);
  }
  return layers;
}

std::vector<int64_t> sensitive_kept_layers(LayerFraction fraction, int64_t n_layer,
                                           const fs::path& sensitivity) {
  const std::vector<int64_t> order = conversion_order(sensitivity, n_layer);
  const int64_t count = kept_count(fraction, n_layer);
  if (count > static_cast<int64_t>(order.size())) {
    throw Error("{}: orders {} attention layers, {} are to be kept", sensitivity.string(),
                order.size(), count);
  }
  std::vector<int64_t> kept(order.end() - count, order.end());
  std::sort(kept.begin(), kept.end());
  return kept;
}

}  // namespace mambify
