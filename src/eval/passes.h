// What every measurement shares: packed forward passes, and logits that are never all held at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/model.h"
#include "text/tokenizer.h"

namespace mambify {

using TokenSpan = std::span<const TokenId>;

// Whole documents [first_document, first_document + segments.documents()), laid end to end.
struct Pass {
  int64_t first_document = 0;
  at::Tensor ids;  // [tokens] int64
  Segments segments;
};

// All documents in order, as many to a pass as fit in max_tokens and at least one. Throws Error for
// an empty document.
std::vector<Pass> make_passes(std::span<const TokenSpan> documents, int64_t max_tokens = 4096);

// Rows whose next token is to be predicted, and those tokens. Both [n] int64.
struct Predictions {
  at::Tensor rows, labels;
};

// counts(document, token): whether predicting that token of that document (an index among all) is
// asked for. A document's first token is never predicted.
Predictions predictions(const Pass& pass,
                        const std::function<bool(int64_t document, int64_t token)>& counts);

// Final hidden states of some rows, [n, d_model]. Throws Error for an id outside the model's
// vocabulary and for a document longer than its positions.
at::Tensor pass_hidden(const Model& model, const Pass& pass, const at::Tensor& rows);

// Calls visit(first, logits) for slices of the rows hidden [n, d_model]; logits is fp32
// [rows of the slice, vocab_size] and holds at most about 64 MB.
void for_each_logits(const Model& model, const at::Tensor& hidden,
                     const std::function<void(int64_t first, const at::Tensor& logits)>& visit);
// How many rows such a slice has.
int64_t logits_rows(const ModelConfig& config);

// What a model makes of given next tokens. Both [n], on the CPU.
struct TokenScores {
  at::Tensor nll;       // fp64, nats
  at::Tensor is_first;  // bool: the label has the highest logit
};

// hidden: [n, d_model]; labels: [n] int64.
TokenScores score_tokens(const Model& model, const at::Tensor& hidden, const at::Tensor& labels);

}  // namespace mambify
