// Log-probabilities of given tokens from hidden states through the output matrix, without ever
// holding [tokens, vocabulary] for a whole batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mambify {

// T tokens, V the vocabulary. fp32 or bf16.
struct LinearLogProbsInputs {
  at::Tensor hidden;  // [T, D]
  at::Tensor weight;  // [V, D], the output matrix
  at::Tensor labels;  // [T] int64, what follows each token; read at `places` only
  at::Tensor places;  // [n] int64, the tokens asked for, none of them twice
};

// log softmax(hidden weight^T)[label] at each of the places, [n] fp32, in nats. Differentiable in
// hidden and weight. Backward forms the logits again, a chunk at a time, because what a token's
// gradient counts is known only then: in the loss of a preference it depends on every token of both
// answers. chunk_tokens: as LinearKlOptions has it.
at::Tensor linear_log_probs(const LinearLogProbsInputs& inputs, int64_t chunk_tokens = 0);

}  // namespace mambify
