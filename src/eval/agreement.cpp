#include "eval/agreement.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "core/error.h"
#include "core/progress.h"
#include "eval/greedy_match.h"
#include "eval/passes.h"
#include "eval/statistics.h"

namespace mambify {
namespace {

// What both models continue: the text before the first counted token, or half of the document.
std::vector<TokenId> greedy_prompt(const Document& document, int64_t max_tokens) {
  const auto counted = std::find(document.counts.begin() + 1, document.counts.end(), true);
  auto length = counted - document.counts.begin();
  if (length <= 1) length = static_cast<int64_t>(document.ids.size() + 1) / 2;
  const auto end = document.ids.begin() + length;
  return {end - std::min<int64_t>(length, max_tokens), end};
}

// Sums of the predicted tokens of each document that has any.
struct DocumentSums {
  std::vector<double> kl, same_first, tokens;

  void add(const Pass& pass, const Predictions& next, const RowAgreement& rows) {
    const int64_t* row = next.rows.const_data_ptr<int64_t>();
    const int64_t* const end = row + next.rows.numel();
    const double* row_kl = rows.kl.const_data_ptr<double>();
    const double* row_same = rows.same_first.const_data_ptr<double>();
    for (int64_t d = 0; d < pass.segments.documents() && row < end; ++d) {
      if (*row >= pass.segments.begin(d + 1)) continue;
      for (std::vector<double>* sums : {&kl, &same_first, &tokens}) sums->push_back(0);
      for (; row < end && *row < pass.segments.begin(d + 1); ++row) {
        kl.back() += *row_kl++;
        same_first.back() += *row_same++;
        tokens.back() += 1;
      }
    }
  }
};

}  // namespace

RowAgreement compare_rows(const Model& student, const at::Tensor& student_hidden,
                          const Model& teacher, const at::Tensor& teacher_hidden) {
  const c10::InferenceMode inference;
  RowAgreement result{at::empty({student_hidden.size(0)}, at::kDouble),
                      at::empty({student_hidden.size(0)}, at::kDouble)};
  for_each_logits(student, student_hidden, [&](int64_t first, const at::Tensor& student_logits) {
    const at::Tensor rows = teacher_hidden.narrow(0, first, student_logits.size(0));
    const at::Tensor teacher_logits = logits(teacher, rows).to(at::kFloat);
    const at::Tensor log_p = teacher_logits.log_softmax(1);
    const at::Tensor difference = student_logits.log_softmax(1).neg_().add_(log_p);
    const int64_t n = student_logits.size(0);
    result.kl.narrow(0, first, n).copy_(difference.mul_(log_p.exp()).sum(1));
    result.same_first.narrow(0, first, n)
        .copy_(student_logits.argmax(1) == teacher_logits.argmax(1));
  });
  return result;
}

AgreementResult agreement(const Model& student, const Model& teacher,
                          std::span<const Document> documents, const AgreementOptions& options) {
  const c10::InferenceMode inference;
  if (student.config.vocab_size != teacher.config.vocab_size) {
    throw Error("the student has a vocabulary of {}, its teacher one of {}",
                student.config.vocab_size, teacher.config.vocab_size);
  }
  std::vector<TokenSpan> spans;
  int64_t total = 0;
  for (const Document& document : documents) {
    if (options.max_tokens > 0 && total >= options.max_tokens) break;
    spans.emplace_back(document.ids);
    total += static_cast<int64_t>(document.ids.size());
  }

  AgreementResult result;
  DocumentSums sums;
  int64_t done = 0;
  {
    Progress progress("agreement", total, "tokens");
    for (const Pass& pass : make_passes(spans)) {
      const Predictions next =
          predictions(pass, [&](int64_t d, int64_t token) { return documents[d].counts[token]; });
      if (next.rows.numel() > 0) {
        sums.add(pass, next,
                 compare_rows(student, pass_hidden(student, pass, next.rows), teacher,
                              pass_hidden(teacher, pass, next.rows)));
        result.tokens += next.rows.numel();
      }
      done += pass.segments.tokens();
      progress.update(done, fmt::format("kl {:.4f}", estimate_ratio(sums.kl, sums.tokens).mean));
    }
  }
  if (result.tokens == 0)
    throw Error("no token of the data counts, so there is nothing to compare");
  const Estimate kl = estimate_ratio(sums.kl, sums.tokens);
  const Estimate top1 = estimate_ratio(sums.same_first, sums.tokens);
  result.kl = kl.mean;
  result.kl_error = kl.error;
  result.top1 = top1.mean;
  result.top1_error = top1.error;

  std::vector<std::vector<TokenId>> prompts;
  for (size_t i = 0; i < spans.size(); ++i) {
    if (static_cast<int64_t>(prompts.size()) == options.greedy_prompts) break;
    if (spans[i].size() < 2) continue;
    prompts.push_back(greedy_prompt(documents[i], options.max_prompt_tokens));
  }
  if (prompts.empty()) return result;
  const std::vector<int64_t> matches =
      greedy_matches(student, teacher, prompts, options.greedy_tokens);
  const std::vector<double> lengths(matches.begin(), matches.end());
  const Estimate match = estimate(lengths);
  result.greedy_prompts = static_cast<int64_t>(matches.size());
  result.greedy_match = match.mean;
  result.greedy_match_error = match.error;
  return result;
}

}  // namespace mambify
