#include "eval/greedy_match.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <numeric>

#include "core/progress.h"

namespace mambify {
namespace {

constexpr size_t kRows = 16;  // sequences decoded side by side

Segments one_token_each(int64_t rows) {
  Segments segments;
  segments.starts.resize(rows + 1);
  std::iota(segments.starts.begin(), segments.starts.end(), int64_t{0});
  return segments;
}

}  // namespace

std::vector<std::vector<TokenId>> greedy_continuations(
    const Model& model, std::span<const std::vector<TokenId>> prompts, int64_t tokens) {
  const c10::InferenceMode inference;
  const std::vector<TokenSpan> documents(prompts.begin(), prompts.end());
  const auto rows = static_cast<int64_t>(prompts.size());
  std::vector<std::vector<TokenId>> continuations(prompts.size());
  if (rows == 0) return continuations;

  int64_t longest = 0, total = 0;
  for (const TokenSpan& document : documents) {
    longest = std::max<int64_t>(longest, static_cast<int64_t>(document.size()));
    total += static_cast<int64_t>(document.size());
  }
  const at::TensorOptions options = model.embedding.options();
  ModelState state(model.config, rows, longest + tokens, options);
  const Pass prefill = make_passes(documents, total).front();
  std::vector<int64_t> last;
  for (int64_t row = 0; row < rows; ++row) last.push_back(prefill.segments.starts[row + 1] - 1);
  Context context = make_context(model.config, prefill.segments, options, &state);
  at::Tensor hidden = hidden_states(model, prefill.ids.to(options.device()), context, &state)
                          .index_select(0, at::tensor(last, at::kLong).to(options.device()));

  Progress progress("greedy continuations", tokens * rows, "tokens");
  for (int64_t step = 0; step < tokens; ++step) {
    const at::Tensor next = logits(model, hidden).argmax(1);
    const at::Tensor on_host = next.cpu();
    for (int64_t row = 0; row < rows; ++row) {
      continuations[row].push_back(static_cast<TokenId>(on_host.const_data_ptr<int64_t>()[row]));
    }
    progress.update((step + 1) * rows);
    if (step + 1 == tokens) break;
    context = make_context(model.config, one_token_each(rows), options, &state);
    hidden = hidden_states(model, next, context, &state);
  }
  return continuations;
}

std::vector<int64_t> greedy_matches(const Model& student, const Model& teacher,
                                    std::span<const std::vector<TokenId>> prompts, int64_t tokens) {
  const c10::InferenceMode inference;
  std::vector<int64_t> matches;
  for (size_t first = 0; first < prompts.size(); first += kRows) {
    const auto group = prompts.subspan(first, std::min(kRows, prompts.size() - first));
    const auto continuations = greedy_continuations(teacher, group, tokens);
    // Up to its first different token the student continues what the teacher wrote, so one pass
    // over the teacher's text shows where that token is.
    std::vector<std::vector<TokenId>> texts(group.begin(), group.end());
    for (size_t i = 0; i < texts.size(); ++i) {
      texts[i].insert(texts[i].end(), continuations[i].begin(), continuations[i].end());
    }
    const std::vector<TokenSpan> documents(texts.begin(), texts.end());
    for (const Pass& pass : make_passes(documents)) {
      const Predictions next = predictions(pass, [&](int64_t document, int64_t token) {
        return token >= static_cast<int64_t>(group[document].size());
      });
      const at::Tensor hidden = pass_hidden(student, pass, next.rows);
      const at::Tensor same = score_tokens(student, hidden, next.labels).is_first;
      const bool* row = same.const_data_ptr<bool>();
      for (int64_t d = 0; d < pass.segments.documents(); ++d, row += tokens) {
        matches.push_back(std::find(row, row + tokens, false) - row);
      }
    }
  }
  return matches;
}

}  // namespace mambify
