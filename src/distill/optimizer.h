// AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with fp32 weights and moments.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "distill/parameters.h"

namespace mambify {

// Updates left out because a loss or gradient was not finite.
struct SkippedSteps {
  int64_t total = 0;
  int64_t in_row = 0;  // up to the last one
};

class AdamW {
 public:
  AdamW(std::vector<TrainedParameter> parameters, const StageSection& stage);

  // Takes the gradients that a backward pass left into fp32. Called after each part of a step, so
  // that parts add up in fp32 even when the gradients are bf16.
  void collect_gradients();
  // Global L2 norm of the collected gradients, a scalar in fp32 where they are; not finite when any
  // of them is not, 0 without any.
  at::Tensor gradient_norm() const;
  // One update at rate_factor times each peak rate, with gradients scaled down to a norm of `clip`
  // (0: never); forgets the gradients. An update whose norm or loss (a scalar where the parameters
  // are; undefined: not looked at) is not finite is skipped there, and nobody waits to know it.
  void step(double rate_factor, const at::Tensor& norm, double clip, const at::Tensor& loss = {});
  // Makes the host wait for the device.
  SkippedSteps skipped() const;
  void set_skipped(const SkippedSteps& skipped);

  // Calls visit(name, tensor) for both moments of every parameter, in a fixed order.
  void for_each_moment(const std::function<void(const std::string&, at::Tensor&)>& visit);
  // Updates made; skipped ones are none. Makes the host wait for the device.
  int64_t steps() const;
  void set_steps(int64_t steps);

 private:
  void forget_gradients();

  // Parameters that share a rate and a decay: one fused call.
  struct Group {
    double peak_rate, weight_decay;
    std::vector<at::Tensor> master, compute, gradient, mean, square;
    // Of compute and master, what is not the same tensor: all of one type, to be copied at once.
    std::vector<at::Tensor> rounded, unrounded;
    std::vector<std::string> names;
  };

  std::vector<Group> groups_;
  std::array<double, 2> betas_;
  double epsilon_;
  at::Tensor steps_;                     // fp32 scalar, as the fused update wants it
  at::Tensor skipped_, skipped_in_row_;  // int64 scalars
};

}  // namespace mambify
