// AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with fp32 weights and moments.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "distill/parameters.h"

namespace mambify {

class AdamW {
 public:
  AdamW(std::vector<TrainedParameter> parameters, const StageSection& stage);

  // Takes the gradients that a backward pass left into fp32. Called after each part of a step, so
  // that parts add up in fp32 even when the gradients are bf16.
  void collect_gradients();
  // Global L2 norm of the collected gradients; not finite when any of them is not.
  double gradient_norm() const;
  // One update at rate_factor times each peak rate, with gradients scaled by gradient_scale;
  // forgets the gradients.
  void step(double rate_factor, double gradient_scale);
  void forget_gradients();

  // Calls visit(name, tensor) for both moments of every parameter, in a fixed order.
  void for_each_moment(const std::function<void(const std::string&, at::Tensor&)>& visit);
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  // Parameters that share a rate and a decay: one fused call.
  struct Group {
    double peak_rate, weight_decay;
    std::vector<at::Tensor> master, compute, gradient, mean, square;
    std::vector<std::string> names;
  };

  std::vector<Group> groups_;
  std::array<double, 2> betas_;
  double epsilon_;
  int64_t steps_ = 0;
};

}  // namespace mambify
