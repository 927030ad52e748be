// The attention of a decoding pass of many tokens, in bf16.
#pragma once

#include "kernels/pass_attention/params.h"

namespace mambify::kernels::attention {

void stream(const PassAttentionParams<Bf16>& p, CudaStream stream);

}  // namespace mambify::kernels::attention
