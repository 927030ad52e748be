// The part of linear_kl between the logits and their gradient.
#pragma once

#include <ATen/core/Tensor.h>

namespace mambify {

// One chunk of n tokens. kernels/logit_loss/params.h has the formulas. All contiguous and fp32, but
// on a CUDA device logits may be bf16.
struct LogitLossChunk {
  at::Tensor student;   // [n, V] logits; overwritten by the loss's gradient if wanted
  at::Tensor teacher;   // [n, V] logits, of the same dtype, overwritten; undefined: no KL
  at::Tensor labels;    // [n] int64, negative: none; undefined: no cross entropy
  at::Tensor kl_scale;  // [n], what the row's KL counts in the loss; defined with teacher
  at::Tensor ce_scale;  // [n], likewise; 0 where there is no label
};

struct LogitLossRows {
  at::Tensor kl;      // [n] fp32; undefined without a teacher
  at::Tensor ce;      // [n] fp32, 0 where there is no label; undefined without labels
  at::Tensor agrees;  // [n] uint8; undefined without a teacher
};

LogitLossRows logit_loss(const LogitLossChunk& chunk, bool gradient);

}  // namespace mambify
