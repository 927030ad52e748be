// The part of linear_kl between the logits and their gradient.
#pragma once

#include <ATen/core/Tensor.h>

namespace mambify {

// One chunk of n tokens. kernels/logit_loss/params.h has the formulas. All fp32 and contiguous.
struct LogitLossChunk {
  at::Tensor student;   // [n, V] logits; overwritten by the loss's gradient if wanted
  at::Tensor teacher;   // [n, V] logits, overwritten; undefined: no KL
  at::Tensor labels;    // [n] int64, negative: none; undefined: no cross entropy
  at::Tensor kl_scale;  // [n], what the row's KL counts in the loss; defined with teacher
  at::Tensor ce_scale;  // [n], likewise; 0 where there is no label
};

struct LogitLossRows {
  at::Tensor kl;      // [n] fp32; undefined without a teacher
  at::Tensor ce;      // [n] fp32, 0 where there is no label; undefined without labels
  at::Tensor agrees;  // [n] uint8; undefined without a teacher
};

// Takes the CPU kernel or, on other devices, the composition below.
LogitLossRows logit_loss(const LogitLossChunk& chunk, bool gradient);

// The same out of ATen operations, for any device.
LogitLossRows composed_logit_loss(const LogitLossChunk& chunk, bool gradient);

}  // namespace mambify
