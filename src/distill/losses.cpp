#include <algorithm>
#include <cmath>

#include "distill/stages.h"

namespace mambify {
namespace {

void add_share(std::optional<double>& sum, const std::optional<double>& value, double share) {
  if (value) sum = sum.value_or(0) + share * *value;
}

}  // namespace

void Losses::add(const Losses& other, double share) {
  total += share * other.total;
  add_share(kl, other.kl, share);
  add_share(ce, other.ce, share);
  add_share(agreement, other.agreement, share);
  layers.resize(std::max(layers.size(), other.layers.size()), 0);
  for (size_t i = 0; i < other.layers.size(); ++i) layers[i] += share * other.layers[i];
}

bool Losses::is_finite() const { return std::isfinite(total); }

}  // namespace mambify
