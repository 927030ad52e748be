// Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290).
#pragma once

#include <ATen/core/Tensor.h>

namespace mambify {

// All differentiable in the student's log-probabilities. The means are scalars in fp64.
struct DpoLoss {
  at::Tensor loss;                            // mean over pairs
  at::Tensor chosen_reward, rejected_reward;  // [pairs]
};

// student, reference: [pairs, 2], log-probabilities of the chosen and the rejected answer, each
// summed over its tokens, fp64. The implicit reward of an answer is beta (student - reference), and
// with the margin m of the chosen one's over the rejected one's a pair's loss is
//   -(1 - label_smoothing) log sigmoid(m) - label_smoothing log sigmoid(-m),
// whose second term allows for pairs that are the wrong way round (the "conservative" DPO of
// Mitchell 2023, which trl computes too).
DpoLoss dpo_loss(const at::Tensor& student, const at::Tensor& reference, double beta,
                 double label_smoothing);

}  // namespace mambify
