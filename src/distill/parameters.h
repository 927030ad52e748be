// Which parameters a stage trains, and how.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "distill/recipe.h"
#include "model/model.h"

namespace mambify {

// master: what is optimized, fp32, where `compute` is. compute: what the forward pass reads and
// what collects the gradient; the same tensor unless the compute type is bf16.
struct TrainedParameter {
  std::string name;  // as for_each_parameter gives it
  at::Tensor master, compute;
  double peak_rate;
  double weight_decay;
};

// Marks exactly the parameters of `compute` that the stage trains as requiring gradients, and
// returns them in for_each_parameter's order. In `master` they are fp32 and on the same device
// afterwards; what is not trained stays where it was. Mixers of Mamba layers learn at
// learning_rate, all else at learning_rate_rest; a rate of 0 or a pattern of `freeze` leaves a
// parameter out. newest: the layers whose mixers are trained with train = "new". Throws Error when
// nothing is left, or a pattern matches nothing.
std::vector<TrainedParameter> select_parameters(Model& master, Model& compute,
                                                const StageSection& stage,
                                                std::span<const int64_t> newest = {});

// * matches any characters, everything else itself.
bool matches_pattern(std::string_view pattern, std::string_view text);

}  // namespace mambify
