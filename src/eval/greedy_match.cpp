#include "eval/greedy_match.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "decode/engine.h"
#include "eval/decoding_copy.h"

namespace mambify {
namespace {

constexpr size_t kRows = 16;  // sequences decoded side by side

}  // namespace

std::vector<std::vector<TokenId>> greedy_continuations(
    const Model& model, std::span<const std::vector<TokenId>> prompts, int64_t tokens,
    const PackedWeights* packed) {
  std::vector<std::vector<TokenId>> continuations(prompts.size());
  if (prompts.empty()) return continuations;
  int64_t longest = 0;
  std::vector<GenerationRequest> requests;
  for (const std::vector<TokenId>& prompt : prompts) {
    longest = std::max(longest, static_cast<int64_t>(prompt.size()));
    GenerationRequest request;
    request.prompt = prompt;
    request.max_tokens = tokens;
    requests.push_back(std::move(request));
  }
  Engine engine(model, /*tokenizer=*/nullptr,
                {.rows = static_cast<int64_t>(prompts.size()),
                 .context = longest + tokens,
                 .packed = packed});
  const std::vector<GenerationResult> results = generate(engine, std::move(requests));
  for (size_t i = 0; i < results.size(); ++i) continuations[i] = results[i].ids;
  return continuations;
}

std::vector<int64_t> greedy_matches(const Model& student, const Model& teacher,
                                    std::span<const std::vector<TokenId>> prompts, int64_t tokens) {
  const c10::InferenceMode inference;
  std::vector<int64_t> matches;
  if (prompts.empty()) return matches;
  const DecodingCopy decoding(teacher);
  for (size_t first = 0; first < prompts.size(); first += kRows) {
    const auto group = prompts.subspan(first, std::min(kRows, prompts.size() - first));
    const auto continuations =
        greedy_continuations(decoding.model(), group, tokens, &decoding.packed());
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
