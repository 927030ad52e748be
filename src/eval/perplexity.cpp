#include "eval/perplexity.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/progress.h"
#include "eval/statistics.h"

namespace mambify {

PerplexityResult perplexity(const Model& model, TokenSpan text, const PerplexityOptions& options) {
  const c10::InferenceMode inference;
  if (options.window < 2) throw Error("a window of {} tokens predicts none", options.window);
  int64_t windows = static_cast<int64_t>(text.size()) / options.window;
  if (windows == 0) {
    throw Error("the text has {} tokens, expected at least one window of {}", text.size(),
                options.window);
  }
  if (options.max_windows > 0) windows = std::min(windows, options.max_windows);
  std::vector<TokenSpan> documents;
  for (int64_t i = 0; i < windows; ++i) {
    documents.push_back(text.subspan(i * options.window, options.window));
  }

  PerplexityResult result;
  result.windows = windows;
  double total = 0;
  std::vector<double> totals, counts;  // of each window
  Progress progress("perplexity", windows * options.window, "tokens");
  for (const Pass& pass : make_passes(documents)) {
    const Predictions next = predictions(pass, [](int64_t, int64_t) { return true; });
    const at::Tensor hidden = pass_hidden(model, pass, next.rows);
    const at::Tensor nll = score_tokens(model, hidden, next.labels).nll;
    total += nll.sum().item<double>();
    const at::Tensor of_windows = nll.view({pass.segments.documents(), -1}).sum(1);
    for (int64_t i = 0; i < of_windows.size(0); ++i) {
      totals.push_back(of_windows[i].item<double>());
      counts.push_back(static_cast<double>(options.window - 1));
    }
    result.tokens += hidden.size(0);
    const int64_t done = pass.first_document + pass.segments.documents();
    progress.update(done * options.window,
                    fmt::format("perplexity {:.3f}", std::exp(total / result.tokens)));
  }
  result.mean_nll = total / static_cast<double>(result.tokens);
  result.mean_nll_error = estimate_ratio(totals, counts).error;
  result.perplexity = std::exp(result.mean_nll);
  return result;
}

}  // namespace mambify
