// The attention of a decoding pass over more sequences than the device runs blocks, in bf16.
#pragma once

#include "kernels/pass_attention/params.h"

namespace mambify::kernels::attention {

// Whether it is the faster one: a warp reads the whole cache of a key/value head, so that there
// must be warps for all multiprocessors, and no cache may be long.
bool takes_many(const PassAttentionParams<Bf16>& p);
void attend_many(const PassAttentionParams<Bf16>& p, CudaStream stream);

}  // namespace mambify::kernels::attention
