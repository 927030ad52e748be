#include "eval/agreement.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/progress.h"
#include "eval/greedy_match.h"
#include "eval/passes.h"

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

}  // namespace

RowAgreement compare_rows(const Model& student, const at::Tensor& student_hidden,
                          const Model& teacher, const at::Tensor& teacher_hidden) {
  const c10::InferenceMode inference;
  RowAgreement sum;
  for_each_logits(student, student_hidden, [&](int64_t first, const at::Tensor& student_logits) {
    const at::Tensor rows = teacher_hidden.narrow(0, first, student_logits.size(0));
    const at::Tensor teacher_logits = logits(teacher, rows).to(at::kFloat);
    const at::Tensor log_p = teacher_logits.log_softmax(1);
    const at::Tensor difference = student_logits.log_softmax(1).neg_().add_(log_p);
    sum.kl += difference.mul_(log_p.exp()).sum(1).to(at::kDouble).sum().item<double>();
    sum.same_first += (student_logits.argmax(1) == teacher_logits.argmax(1)).sum().item<int64_t>();
  });
  return sum;
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
  double kl = 0;
  int64_t same = 0, done = 0;
  {
    Progress progress("agreement", total, "tokens");
    for (const Pass& pass : make_passes(spans)) {
      const Predictions next =
          predictions(pass, [&](int64_t d, int64_t token) { return documents[d].counts[token]; });
      if (next.rows.numel() > 0) {
        const RowAgreement sum = compare_rows(student, pass_hidden(student, pass, next.rows),
                                              teacher, pass_hidden(teacher, pass, next.rows));
        kl += sum.kl;
        same += sum.same_first;
        result.tokens += next.rows.numel();
      }
      done += pass.segments.tokens();
      progress.update(done, fmt::format("kl {:.4f}", kl / std::max<int64_t>(1, result.tokens)));
    }
  }
  if (result.tokens == 0)
    throw Error("no token of the data counts, so there is nothing to compare");
  result.kl = kl / static_cast<double>(result.tokens);
  result.top1 = static_cast<double>(same) / static_cast<double>(result.tokens);

  std::vector<std::vector<TokenId>> prompts;
  for (size_t i = 0; i < spans.size(); ++i) {
    if (static_cast<int64_t>(prompts.size()) == options.greedy_prompts) break;
    if (spans[i].size() < 2) continue;
    prompts.push_back(greedy_prompt(documents[i], options.max_prompt_tokens));
  }
  if (prompts.empty()) return result;
  const std::vector<int64_t> matches =
      greedy_matches(student, teacher, prompts, options.greedy_tokens);
  result.greedy_prompts = static_cast<int64_t>(matches.size());
  result.greedy_match =
      static_cast<double>(std::accumulate(matches.begin(), matches.end(), int64_t{0})) /
      static_cast<double>(matches.size());
  return result;
}

}  // namespace mambify
