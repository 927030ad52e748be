// Logits of many tokens a chunk at a time: what losses through the output matrix share, so that
// [tokens, vocabulary] is never held for a whole batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mambify {

// How many of `count` tokens to take at once. Equal chunks: a small last one would read the whole
// output matrix for few rows. weight: [V, D]; wanted: tokens, or 0 for as many as take 64 MB of
// logits in fp32, or 1 GB on a CUDA device.
int64_t logit_chunk_tokens(int64_t count, const at::Tensor& weight, int64_t wanted);

// Logits of one model for one chunk. Keeps its memory between chunks, because fresh pages for tens
// of megabytes cost as much as the softmax.
class LogitBuffer {
 public:
  // weight: [V, D]; rows: most tokens of a chunk; type: of the logits, fp32 or weight's own.
  LogitBuffer(const at::Tensor& weight, int64_t rows, at::ScalarType type);

  // hidden: [n, D], n at most the rows given; returns [n, V], valid until the next call.
  at::Tensor fill(const at::Tensor& hidden);

 private:
  at::Tensor weight_, logits_, product_;
};

// What chunks add up to: gradients of the hidden states and of the output matrix.
struct HeadGradients {
  at::Tensor hidden;  // [T, D], zeros at first; undefined: not wanted
  at::Tensor weight;  // [V, D] fp32, likewise

  // One chunk: the gradient of its logits [n, V], its tokens' places [n] and hidden states [n, D].
  void add(const at::Tensor& dlogits, const at::Tensor& places, const at::Tensor& hidden_rows,
           const at::Tensor& output_matrix);
};

}  // namespace mambify
