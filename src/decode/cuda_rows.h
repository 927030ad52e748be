// Decoding on a CUDA device: every pass is one graph of our own kernels, and nothing of LibTorch.
#pragma once

#include "decode/model_rows.h"
#include "model/cuda_weights.h"

namespace mambify {

// As make_model_rows. Throws Error when the device's memory does not hold the state.
std::unique_ptr<ModelRows> make_cuda_rows(const CudaWeights& weights, int64_t rows, int64_t context,
                                          int64_t max_drafts, std::vector<TokenId> tokens);

}  // namespace mambify
