// Causal softmax attention of packed documents, each from its beginning.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/segments.h"

namespace mambify {

// q: [T, H, P]; k, v: [T, G, P], head j reading head j / (H / G); returns [T, H, P]. Scores are
// scaled by P^-1/2. Differentiable in all three.
at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const Segments& segments);

}  // namespace mambify
