// RMSNorm (Zhang & Sennrich 2019, arXiv 1910.07467), plain and gated as Mamba-2 has it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mambify {

// x / sqrt(mean(x^2) + eps) * weight over each row. x: [T, C], fp32 or bf16; weight: [C]. Returns
// [T, C] in the dtype of x; what lies between is fp32. Differentiable in both.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// The same of x * silu(z), over each group of group_size neighbouring channels. x, z: [T, C],
// perhaps column slices; group_size divides C. Differentiable in all three.
at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& z, const at::Tensor& weight,
                          int64_t group_size, double eps);

}  // namespace mambify
