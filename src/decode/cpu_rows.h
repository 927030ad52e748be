// Decoding on the CPU: the model's own forward pass, with its products by rows_linear.
#pragma once

#include "decode/model_rows.h"

namespace mambify {

// As make_model_rows.
std::unique_ptr<ModelRows> make_cpu_rows(const Model& model, int64_t rows, int64_t context,
                                         int64_t max_drafts, const PackedWeights* packed,
                                         std::vector<TokenId> tokens);

}  // namespace mambify
