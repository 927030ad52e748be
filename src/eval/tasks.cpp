#include "eval/tasks.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "core/error.h"
#include "core/progress.h"
#include "eval/passes.h"

namespace mambify {
namespace {

// What the model makes of one continuation.
struct Likelihood {
  double log_likelihood = 0;  // nats
  bool is_greedy = true;
};

std::vector<Likelihood> score(const Model& model, const std::vector<ScoredText>& texts,
                              const std::string& title) {
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

// Whether the gold choice has the highest score; the first of equal ones counts as chosen.
double gold_is_best(const std::vector<double>& scores, int64_t gold) {
  return std::max_element(scores.begin(), scores.end()) - scores.begin() == gold ? 1 : 0;
}

}  // namespace

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

TaskOutcome run_task(const Model& model, const Tokenizer& tokenizer, const Task& task) {
  const c10::InferenceMode inference;
  std::vector<ScoredText> texts;
  for (const TaskItem& item : task.items) {
    for (const std::string& continuation : item.continuations) {
      texts.push_back(
          encode_pair(tokenizer, item.context, continuation, model.config.max_positions));
    }
  }
  const std::vector<Likelihood> likelihoods = score(model, texts, task.name);

  TaskOutcome outcome;
  auto next = likelihoods.begin();
  for (const TaskItem& item : task.items) {
    if (task.kind == TaskKind::last_word) {
      outcome.acc.push_back(next++->is_greedy ? 1 : 0);
      continue;
    }
    std::vector<double> totals, per_character;
    for (const int64_t characters : item.characters) {
      totals.push_back(next->log_likelihood);
      per_character.push_back(next->log_likelihood / static_cast<double>(characters));
      ++next;
    }
    outcome.acc.push_back(gold_is_best(totals, item.gold));
    outcome.acc_norm.push_back(gold_is_best(per_character, item.gold));
  }
  return outcome;
}

}  // namespace mambify
