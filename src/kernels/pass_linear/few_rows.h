// Products of few rows: what a pass that decodes or verifies one sequence computes.
#pragma once

#include "kernels/pass_linear/params.h"

namespace mambify::kernels::linear {

inline constexpr int64_t kMostFewRows = 8;

// As pass_linear_cuda, with the same bits.
void few_rows_cuda(const PassLinearParams<Bf16>& p, CudaStream stream);

}  // namespace mambify::kernels::linear
