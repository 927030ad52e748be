#include "eval/tasks/likelihood.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "core/error.h"
#include "core/progress.h"
#include "eval/passes.h"

namespace mambify {

ScoredText encode_pair(const Tokenizer& tokenizer, const std::string& context,
                       const std::string& continuation, int64_t max_positions) {
  ScoredText text;
  text.ids = tokenizer.encode_prompt(context + continuation);
  text.scored_from = static_cast<int64_t>(tokenizer.encode_prompt(context).size());
  if (text.scored_from == 0) {
    const auto start = tokenizer.bos_id() ? tokenizer.bos_id() : tokenizer.eos_id();
    if (!start) throw Error("a context is empty and the tokenizer has no token to begin with");
    text.ids.insert(text.ids.begin(), *start);
    text.scored_from = 1;
  }
  const auto length = static_cast<int64_t>(text.ids.size());
  if (max_positions > 0 && length > max_positions) {
    text.ids.erase(text.ids.begin(), text.ids.end() - max_positions);
    text.scored_from -= length - max_positions;
  }
  if (text.scored_from < 1 || text.scored_from >= static_cast<int64_t>(text.ids.size())) {
    throw Error("\"{}\" has no token of its own behind its context, or none of the context is left",
                continuation);
  }
  return text;
}

std::vector<Likelihood> score_texts(const Model& model, const std::vector<ScoredText>& texts,
                                    const std::string& title) {
  const c10::InferenceMode inference;
  std::vector<TokenSpan> documents;
  int64_t total = 0;
  for (const ScoredText& text : texts) {
    documents.emplace_back(text.ids);
    total += static_cast<int64_t>(text.ids.size());
  }
  std::vector<Likelihood> results;
  Progress progress(title, total, "tokens");
  int64_t done = 0;
  for (const Pass& pass : make_passes(documents)) {
    const Predictions next =
        predictions(pass, [&](int64_t d, int64_t token) { return token >= texts[d].scored_from; });
    const TokenScores scores =
        score_tokens(model, pass_hidden(model, pass, next.rows), next.labels);
    const double* nll = scores.nll.const_data_ptr<double>();
    const bool* is_first = scores.is_first.const_data_ptr<bool>();
    for (int64_t d = 0; d < pass.segments.documents(); ++d) {
      Likelihood result;
      const int64_t scored = pass.segments.length(d) - texts[pass.first_document + d].scored_from;
      for (int64_t i = 0; i < scored; ++i, ++nll, ++is_first) {
        result.log_likelihood -= *nll;
        result.is_greedy = result.is_greedy && *is_first;
      }
      results.push_back(result);
    }
    done += pass.segments.tokens();
    progress.update(done);
  }
  return results;
}

}  // namespace mambify
