// The linear map of the convolution of few rows, in bf16: what Mamba-1 selects by.
#pragma once

#include "kernels/pass_linear/params.h"

namespace mambify::kernels::linear {

// Whether this product is one, on a device that has clusters of blocks.
bool takes_convolved(const PassLinearParams<Bf16>& p);

// As pass_linear_cuda, with the same bits.
void convolved_cuda(const PassLinearParams<Bf16>& p, CudaStream stream);

}  // namespace mambify::kernels::linear
