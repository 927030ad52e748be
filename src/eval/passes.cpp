#include "eval/passes.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"

namespace mambify {
namespace {

constexpr int64_t kLogitsBytes = int64_t{64} << 20;

}  // namespace

std::vector<Pass> make_passes(std::span<const TokenSpan> documents, int64_t max_tokens) {
  std::vector<Pass> passes;
  for (size_t first = 0; first < documents.size();) {
    Pass pass;
    pass.first_document = static_cast<int64_t>(first);
    pass.segments.starts = {0};
    for (; first < documents.size(); ++first) {
      const auto length = static_cast<int64_t>(documents[first].size());
      if (length == 0) throw Error("document {} has no token", first);
      const bool fits = pass.segments.tokens() + length <= max_tokens;
      if (!fits && pass.segments.documents() > 0) break;
      pass.segments.starts.push_back(pass.segments.tokens() + length);
    }
    pass.ids = at::empty({pass.segments.tokens()}, at::kLong);
    int64_t* out = pass.ids.data_ptr<int64_t>();
    for (size_t d = pass.first_document; d < first; ++d) {
      out = std::copy(documents[d].begin(), documents[d].end(), out);
    }
    passes.push_back(std::move(pass));
  }
  return passes;
}

at::Tensor pass_hidden(const Model& model, const Pass& pass, const at::Tensor& rows) {
  const auto largest = pass.ids.max().item<int64_t>();
  const auto smallest = pass.ids.min().item<int64_t>();
  if (smallest < 0 || largest >= model.config.vocab_size) {
    throw Error("token id {} is outside the model's vocabulary of {}",
                smallest < 0 ? smallest : largest, model.config.vocab_size);
  }
  for (int64_t d = 0; d < pass.segments.documents(); ++d) {
    const int64_t length = pass.segments.length(d), limit = model.config.max_positions;
    if (limit > 0 && length > limit) {
      throw Error("a sequence has {} tokens, the model takes at most {}", length, limit);
    }
  }
  const at::TensorOptions options = model.embedding.options();
  const Context context = make_context(model.config, pass.segments, options);
  return hidden_states(model, pass.ids.to(options.device()), context)
      .index_select(0, rows.to(options.device()));
}

Predictions predictions(const Pass& pass,
                        const std::function<bool(int64_t document, int64_t token)>& counts) {
  std::vector<int64_t> rows, labels;
  const int64_t* ids = pass.ids.const_data_ptr<int64_t>();
  for (int64_t d = 0; d < pass.segments.documents(); ++d) {
    const int64_t begin = pass.segments.begin(d);
    for (int64_t token = 1; token < pass.segments.length(d); ++token) {
      if (!counts(pass.first_document + d, token)) continue;
      rows.push_back(begin + token - 1);
      labels.push_back(ids[begin + token]);
    }
  }
  return {at::tensor(rows, at::kLong), at::tensor(labels, at::kLong)};
}

int64_t logits_rows(const ModelConfig& config) {
  return std::max<int64_t>(1, kLogitsBytes / (config.vocab_size * int64_t{sizeof(float)}));
}

void for_each_logits(const Model& model, const at::Tensor& hidden,
                     const std::function<void(int64_t first, const at::Tensor& logits)>& visit) {
  const int64_t slice = logits_rows(model.config);
  for (int64_t first = 0; first < hidden.size(0); first += slice) {
    const int64_t rows = std::min(slice, hidden.size(0) - first);
    visit(first, logits(model, hidden.narrow(0, first, rows)).to(at::kFloat));
  }
}

TokenScores score_tokens(const Model& model, const at::Tensor& hidden, const at::Tensor& labels) {
  TokenScores scores{at::empty({hidden.size(0)}, at::kDouble),
                     at::empty({hidden.size(0)}, at::kBool)};
  const at::Tensor targets = labels.to(hidden.device());
  for_each_logits(model, hidden, [&](int64_t first, const at::Tensor& logits) {
    const at::Tensor label = targets.narrow(0, first, logits.size(0));
    const at::Tensor chosen = logits.gather(1, label.unsqueeze(1)).squeeze(1);
    scores.nll.narrow(0, first, logits.size(0)).copy_(logits.logsumexp(1) - chosen);
    scores.is_first.narrow(0, first, logits.size(0)).copy_(logits.argmax(1) == label);
  });
  return scores;
}

}  // namespace mambify
