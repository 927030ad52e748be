// Which layers of a model keep attention.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace mambify {

// A share of the layers, 0 <= numerator <= denominator.
struct LayerFraction {
  int64_t numerator = 0;
  int64_t denominator = 1;
};

// "1/4", "3/8", "0" or "1". Throws UsageError for anything else.
LayerFraction parse_layer_fraction(std::string_view text);

// "3,7,11" as ascending layer numbers below n_layer; "" and "none" keep no layer. Throws UsageError
// for anything else, a layer out of range or named twice.
std::vector<int64_t> parse_layer_list(std::string_view text, int64_t n_layer);

// How many of n_layer layers a fraction keeps: rounded down for 1/k, to the nearest otherwise.
int64_t kept_count(LayerFraction fraction, int64_t n_layer);

// The layers that keep attention, ascending. 1/k keeps each layer i with i mod k == k - 1, the
// nested choice of Wang et al. 2024 (arXiv 2408.15237); other fractions are spaced evenly.
std::vector<int64_t> evenly_kept_layers(LayerFraction fraction, int64_t n_layer);

// The same number of layers, chosen by the file that `eval sensitivity` writes: its "order" names
// every attention layer, the one that is cheapest to convert first, and the last ones are kept.
std::vector<int64_t> sensitive_kept_layers(LayerFraction fraction, int64_t n_layer,
                                           const fs::path& sensitivity);

}  // namespace mambify
