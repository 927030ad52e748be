// The linear map of a decoding pass for many rows, in bf16.
#pragma once

#include "kernels/pass_linear/params.h"

namespace mambify::kernels::linear {

// Whether it is the faster one, of more than 32 rows: a product of many outputs gives every
// multiprocessor a tile sooner.
inline bool takes_many_rows(const PassLinearParams<Bf16>& p) {
  return p.rows > 64 || p.outputs * (p.gated ? 2 : 1) >= 16384;
}

// As pass_linear_cuda, with the same bits; without a norm or a convolution.
void many_rows_cuda(const PassLinearParams<Bf16>& p, CudaStream stream);

}  // namespace mambify::kernels::linear
