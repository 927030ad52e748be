// Products of many inputs and few outputs, of few rows, in bf16: what Mamba-1 selects by.
#pragma once

#include "kernels/pass_linear/params.h"

namespace mambify::kernels::linear {

// Whether this product is one, on a device that has clusters of blocks.
bool takes_few_outputs(const PassLinearParams<Bf16>& p);

// As pass_linear_cuda, with the same bits.
void few_outputs_cuda(const PassLinearParams<Bf16>& p, CudaStream stream);

}  // namespace mambify::kernels::linear
