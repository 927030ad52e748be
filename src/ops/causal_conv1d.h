// The short causal depthwise convolution in front of a Mamba scan.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/segments.h"

namespace mambify {

// y[t, c] = act(bias[c] + sum over k of weight[c, k] x[t - (W - 1) + k, c]) within each document,
// act = SiLU or nothing. x: [T, C], fp32 or bf16, perhaps a column slice of a projection; weight:
// [C, W] with W at most 8; bias: [C] or undefined. Returns [T, C] in the dtype of x. Differentiable
// in x, weight and bias.
//
// x may also be [T, C / r] in blocks of x_block channels, each of which r neighbouring blocks of y
// read: as if it were repeated, which a CUDA device need not do in memory.
//
// window: [documents, C, W - 1] fp32, contiguous; read as the inputs before each document's first
// token, oldest first, and overwritten with its last W - 1 inputs. Null: zeros. No gradient flows
// through it.
at::Tensor causal_conv1d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const Segments& segments, bool silu, at::Tensor* window = nullptr,
                         int64_t x_block = 1);

}  // namespace mambify
