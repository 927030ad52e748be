#include <ATen/ops/cat.h>

#include "distill/stages.h"

namespace mambify {
namespace {

void add_share(at::Tensor& sum, const at::Tensor& value, double share) {
  if (!value.defined()) return;
  const at::Tensor part = value * share;
  sum = sum.defined() ? sum + part : part;
}

}  // namespace

void LossTensors::add(const LossTensors& other, double share) {
  add_share(total, other.total, share);
  add_share(kl, other.kl, share);
  add_share(ce, other.ce, share);
  add_share(agreement, other.agreement, share);
  add_share(layers, other.layers, share);
}

Losses LossTensors::read() const {
  // One copy to the host for all.
  std::vector<at::Tensor> parts;
  for (const at::Tensor* scalar : {&total, &kl, &ce, &agreement}) {
    if (scalar->defined()) parts.push_back(scalar->reshape({1}));
  }
  if (layers.defined()) parts.push_back(layers);
  Losses losses;
  if (parts.empty()) return losses;
  const at::Tensor values = at::cat(parts).cpu();
  const double* next = values.const_data_ptr<double>();
  if (total.defined()) losses.total = *next++;
  if (kl.defined()) losses.kl = *next++;
  if (ce.defined()) losses.ce = *next++;
  if (agreement.defined()) losses.agreement = *next++;
  if (layers.defined()) losses.layers.assign(next, next + layers.numel());
  return losses;
}

}  // namespace mambify
