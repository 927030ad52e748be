#include "distill/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

namespace mambify {

AdamW::AdamW(std::vector<TrainedParameter> parameters, const StageSection& stage)
    : betas_(stage.betas), epsilon_(stage.epsilon) {
  const auto options = parameters.front().master.options().requires_grad(false);
  steps_ = at::zeros({}, options);
  skipped_ = skipped_in_row_ = at::zeros({}, options.dtype(at::kLong));
  for (TrainedParameter& parameter : parameters) {
    auto group = std::ranges::find_if(groups_, [&](const Group& candidate) {
      return candidate.peak_rate == parameter.peak_rate &&
             candidate.weight_decay == parameter.weight_decay;
    });
    if (group == groups_.end()) {
      groups_.push_back(
          {parameter.peak_rate, parameter.weight_decay, {}, {}, {}, {}, {}, {}, {}, {}});
      group = groups_.end() - 1;
    }
    group->names.push_back(parameter.name);
    group->mean.push_back(at::zeros_like(parameter.master));
    group->square.push_back(at::zeros_like(parameter.master));
    if (!parameter.compute.is_same(parameter.master)) {
      group->rounded.push_back(parameter.compute);
      group->unrounded.push_back(parameter.master);
    }
    group->master.push_back(std::move(parameter.master));
    group->compute.push_back(std::move(parameter.compute));
    group->gradient.emplace_back();
  }
}

void AdamW::collect_gradients() {
  std::vector<at::Tensor> rounded, unrounded;  // to be copied at once: most are small
  for (Group& group : groups_) {
    for (size_t i = 0; i < group.compute.size(); ++i) {
      at::Tensor& fresh = group.compute[i].mutable_grad();
      if (!fresh.defined()) continue;
      at::Tensor& sum = group.gradient[i];
      if (sum.defined()) {
        sum.add_(fresh);
      } else if (fresh.scalar_type() == at::kFloat) {
        sum = fresh;
      } else {
        sum = at::empty(fresh.sizes(), fresh.options().dtype(at::kFloat));
        unrounded.push_back(sum);
        rounded.push_back(fresh);
      }
      fresh.reset();
    }
  }
  if (!rounded.empty()) at::_foreach_copy_(unrounded, rounded);
}

at::Tensor AdamW::gradient_norm() const {
  std::vector<at::Tensor> gradients;
  for (const Group& group : groups_) {
    std::ranges::copy_if(group.gradient, std::back_inserter(gradients),
                         [](const at::Tensor& gradient) { return gradient.defined(); });
  }
  if (gradients.empty()) return at::zeros({}, steps_.options());
  return at::stack(at::_foreach_norm(gradients, 2)).to(at::kDouble).norm().to(at::kFloat);
}

void AdamW::step(double rate_factor, const at::Tensor& norm, double clip, const at::Tensor& loss) {
  const at::NoGradGuard no_grad;
  at::Tensor is_finite = at::isfinite(norm);
  if (loss.defined()) is_finite = is_finite.logical_and(at::isfinite(loss));
  const at::Tensor found_inf = is_finite.logical_not().to(at::kFloat);
  skipped_in_row_ = at::where(is_finite, at::zeros_like(skipped_), skipped_in_row_ + 1);
  skipped_ = skipped_ + is_finite.logical_not();
  steps_ = steps_ + is_finite;
  // The fused update divides gradients by this.
  const at::Tensor divisor = clip > 0 ? (norm / clip).clamp_min(1) : at::ones({}, steps_.options());
  for (Group& group : groups_) {
    for (size_t i = 0; i < group.gradient.size(); ++i) {
      // A part of the model that this step's loss did not reach still decays and forgets.
      if (!group.gradient[i].defined()) group.gradient[i] = at::zeros_like(group.master[i]);
    }
    const std::vector<at::Tensor> step_counts(group.master.size(), steps_);
    at::_fused_adamw_(group.master, group.gradient, group.mean, group.square, {}, step_counts,
                      rate_factor * group.peak_rate, betas_[0], betas_[1], group.weight_decay,
                      epsilon_, /*amsgrad=*/false, /*maximize=*/false, divisor, found_inf);
    if (!group.rounded.empty()) at::_foreach_copy_(group.rounded, group.unrounded);
  }
  forget_gradients();
}

SkippedSteps AdamW::skipped() const {
  const at::Tensor counts = at::stack({skipped_, skipped_in_row_}).cpu();
  return {counts[0].item<int64_t>(), counts[1].item<int64_t>()};
}

void AdamW::set_skipped(const SkippedSteps& skipped) {
  skipped_ = at::full({}, skipped.total, skipped_.options());
  skipped_in_row_ = at::full({}, skipped.in_row, skipped_.options());
}

int64_t AdamW::steps() const { return std::lround(steps_.item<float>()); }

void AdamW::set_steps(int64_t steps) {
  steps_ = at::full({}, static_cast<double>(steps), steps_.options());
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
