// The distillation losses of hidden states through the output matrix, without ever holding
// [tokens, vocabulary] for a whole batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mambify {

// T tokens, V the vocabulary. fp32 or bf16.
struct LinearKlInputs {
  at::Tensor hidden;          // [T, D], the student's
  at::Tensor weight;          // [V, D], the student's output matrix
  at::Tensor teacher_hidden;  // [T, Dt]; undefined, like its weight, when kl_weight is 0
  at::Tensor teacher_weight;  // [V, Dt]
  at::Tensor labels;          // [T] int64, what follows each token, negative: nothing to predict;
                              // undefined when ce_weight is 0
  at::Tensor mask;            // [T], a weight for each token, or bool; undefined: 1 where there are
                              // no labels or the label is not negative, else 0
  at::Tensor places;          // [n] int64, where the mask is not 0; undefined: looked for, which
                              // on a CUDA device makes the host wait
};

struct LinearKlOptions {
  double kl_weight = 1;
  double ce_weight = 0;
  int64_t chunk_tokens = 0;  // tokens whose logits are held at once; 0: as many as take 64 MB in
                             // fp32, or 1 GB on a CUDA device
};

struct LinearKlResult {
  // kl_weight * KL + ce_weight * CE, a scalar in fp32, in nats. Each is the mean over the tokens it
  // has a value for, weighted by the mask. Differentiable in hidden and weight, once: the gradients
  // are formed in the forward pass, and backward gives them away.
  at::Tensor loss;
  int64_t counted = 0;  // tokens of nonzero mask
  // fp64 scalars, where the inputs are; 0 when they are not asked for.
  at::Tensor kl;      // KL(teacher || student)
  at::Tensor ce;      // cross entropy
  at::Tensor agreed;  // tokens of nonzero mask whose largest logit is the teacher's too
};

LinearKlResult linear_kl(const LinearKlInputs& inputs, const LinearKlOptions& options);

}  // namespace mambify
