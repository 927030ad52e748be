#include "distill/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

namespace mambify {

AdamW::AdamW(std::vector<TrainedParameter> parameters, const StageSection& stage)
    : betas_(stage.betas), epsilon_(stage.epsilon) {
  for (TrainedParameter& parameter : parameters) {
    auto group = std::ranges::find_if(groups_, [&](const Group& candidate) {
      return candidate.peak_rate == parameter.peak_rate &&
             candidate.weight_decay == parameter.weight_decay;
    });
    if (group == groups_.end()) {
      groups_.push_back({parameter.peak_rate, parameter.weight_decay, {}, {}, {}, {}, {}, {}});
      group = groups_.end() - 1;
    }
    group->names.push_back(parameter.name);
    group->mean.push_back(at::zeros_like(parameter.master));
    group->square.push_back(at::zeros_like(parameter.master));
    group->master.push_back(std::move(parameter.master));
    group->compute.push_back(std::move(parameter.compute));
    group->gradient.emplace_back();
  }
}

void AdamW::collect_gradients() {
  for (Group& group : groups_) {
    for (size_t i = 0; i < group.compute.size(); ++i) {
      at::Tensor& fresh = group.compute[i].mutable_grad();
      if (!fresh.defined()) continue;
      at::Tensor& sum = group.gradient[i];
      sum = sum.defined() ? sum.add_(fresh) : fresh.to(at::kFloat);
      fresh.reset();
    }
  }
}

double AdamW::gradient_norm() const {
  std::vector<at::Tensor> gradients;
  for (const Group& group : groups_) {
    std::ranges::copy_if(group.gradient, std::back_inserter(gradients),
                         [](const at::Tensor& gradient) { return gradient.defined(); });
  }
  if (gradients.empty()) return 0;
  return at::stack(at::_foreach_norm(gradients, 2)).to(at::kDouble).norm().item<double>();
}

void AdamW::step(double rate_factor, double gradient_scale) {
  const at::NoGradGuard no_grad;
  ++steps_;
  for (Group& group : groups_) {
    for (size_t i = 0; i < group.gradient.size(); ++i) {
      // A part of the model that this step's loss did not reach still decays and forgets.
      if (!group.gradient[i].defined()) group.gradient[i] = at::zeros_like(group.master[i]);
    }
    const auto scalar = group.master.front().options();
    const std::vector<at::Tensor> step_counts(group.master.size(),
                                              at::full({}, static_cast<double>(steps_), scalar));
    // The fused update divides gradients by this.
    const at::Tensor divisor = at::full({}, 1 / gradient_scale, scalar);
    at::_fused_adamw_(group.master, group.gradient, group.mean, group.square, {}, step_counts,
                      rate_factor * group.peak_rate, betas_[0], betas_[1], group.weight_decay,
                      epsilon_, /*amsgrad=*/false, /*maximize=*/false, divisor,
                      /*found_inf=*/{});
    for (size_t i = 0; i < group.master.size(); ++i) {
      if (!group.compute[i].is_same(group.master[i])) group.compute[i].copy_(group.master[i]);
    }
  }
  forget_gradients();
}

void AdamW::forget_gradients() {
  for (Group& group : groups_) {
    for (size_t i = 0; i < group.gradient.size(); ++i) {
      group.gradient[i].reset();
      group.compute[i].mutable_grad().reset();
    }
  }
}

void AdamW::for_each_moment(const std::function<void(const std::string&, at::Tensor&)>& visit) {
  for (Group& group : groups_) {
    for (size_t i = 0; i < group.names.size(); ++i) {
      visit(group.names[i] + ".mean", group.mean[i]);
      visit(group.names[i] + ".square", group.square[i]);
    }
  }
}

}  // namespace mambify
