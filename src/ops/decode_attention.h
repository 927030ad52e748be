// Key/value caches of sequences: writing new tokens, and attention of one new token of each.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace mambify {

// Writes new tokens' keys, or their values, to their places: token t to position positions[t] of
// row rows[t]. cache: [rows, groups, capacity, width]; x: [tokens, groups, width] of its type;
// rows, positions: [tokens] int64, on the cache's device. Not differentiable.
void store_in_cache(at::Tensor& cache, const at::Tensor& x, const at::Tensor& rows,
                    const at::Tensor& positions);

// q: [sequences, heads, width]. keys, values: [rows, groups, capacity, width], of q's type, fp32 or
// bf16; query head h reads group h / (heads / groups). Sequence s reads positions [0, lengths[s])
// of row rows[s]. Scores are scaled by width^-1/2 and accumulated in fp32. Returns what q is like.
// The bits of a sequence do not depend on the others. Not differentiable.
at::Tensor decode_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                            const std::vector<int64_t>& rows, const std::vector<int64_t>& lengths);

}  // namespace mambify
