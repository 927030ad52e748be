// Learning rates over a stage.
#pragma once

#include "distill/recipe.h"

namespace mambify {

// The rate as a share of its peak. progress: how much of the stage is done, in [0, 1]; in a stage
// of n steps, step i is at (i + 0.5) / n. Rises linearly from a tenth over `warmup`; then
//   constant: 1;  cosine (Loshchilov & Hutter 2017): half a cosine down to final_rate;
//   wsd (Hu et al. 2024, arXiv 2404.06395): 1, then linear over `decay` down to final_rate.
double rate_factor(const StageSection& stage, double progress);

}  // namespace mambify
