#include "distill/losses.h"

#include <ATen/ops/cat.h>

namespace mambify {
namespace {

void add_share(at::Tensor& sum, const at::Tensor& value, double share) {
  if (!value.defined()) return;
  const at::Tensor part = value * share;
  sum = sum.defined() ? sum + part : part;
}

// Pointers to the parts, in their order.
template <typename Value, typename Parts>
std::vector<Value*> listed(Parts& parts) {
  std::vector<Value*> list;
  Parts::for_each(parts, [&](const char*, Value& part) { list.push_back(&part); });
  return list;
}

}  // namespace

void LossTensors::add(const LossTensors& other, double share) {
  add_share(total, other.total, share);
  add_share(layers, other.layers, share);
  LossParts<at::Tensor> theirs = other.parts;  // handles
  const auto own = listed<at::Tensor>(parts), added = listed<at::Tensor>(theirs);
  for (size_t i = 0; i < own.size(); ++i) add_share(*own[i], *added[i], share);
}

Losses LossTensors::read() const {
  Losses losses;
  LossParts<at::Tensor> computed = parts;  // handles
  // One copy to the host for all.
  std::vector<at::Tensor> found;
  std::vector<std::optional<double>*> wanted;
  const auto tensors = listed<at::Tensor>(computed);
  const auto values = listed<std::optional<double>>(losses.parts);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i]->defined()) continue;
    found.push_back(tensors[i]->reshape({1}));
    wanted.push_back(values[i]);
  }
  if (total.defined()) found.push_back(total.reshape({1}));
  if (layers.defined()) found.push_back(layers);
  if (found.empty()) return losses;
  const at::Tensor read = at::cat(found).cpu();
  const double* next = read.const_data_ptr<double>();
  for (std::optional<double>* value : wanted) *value = *next++;
  if (total.defined()) losses.total = *next++;
  if (layers.defined()) losses.layers.assign(next, next + layers.numel());
  return losses;
}

}  // namespace mambify
