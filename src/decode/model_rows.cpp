#include "decode/model_rows.h"

#include <utility>

#include "core/error.h"
#include "decode/cpu_rows.h"
#include "decode/cuda_rows.h"
#include "kernels/parallel.h"

namespace mambify {

std::vector<TokenId> ModelRows::read_and_draw(std::span<const RowInput> inputs,
                                              std::span<const TokenDraw> draws) {
  const NextTokenScores scores = read(inputs);
  std::vector<TokenId> drawn(draws.size());
  kernels::parallel_tasks(scores.size(), scores.numbers(), [&](int64_t i) {
    drawn[i] = sample_token(scores[i], draws[i].sampling, draws[i].sequence, draws[i].position,
                            scores.tokens());
  });
  return drawn;
}

void ModelRows::pretend(int64_t, int64_t) {
  throw Error("a context of random numbers: on a CUDA device only");
}

std::unique_ptr<ModelRows> make_model_rows(const Model& model, int64_t rows, int64_t context,
                                           int64_t max_drafts, const PackedWeights* packed,
                                           std::vector<TokenId> tokens) {
  const int64_t outputs = tokens.empty() ? model.config.vocab_size : std::ssize(tokens);
  TORCH_CHECK(model.lm_head.size(0) == outputs, "the output matrix has ", model.lm_head.size(0),
              " rows for ", outputs, " tokens");
  if (packed != nullptr && packed->cuda() != nullptr) {
    return make_cuda_rows(*packed->cuda(), rows, context, max_drafts, std::move(tokens));
  }
  return make_cpu_rows(model, rows, context, max_drafts, packed, std::move(tokens));
}

}  // namespace mambify
