#include "eval/needle/key_likelihood.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace mambify {
namespace {

double nll_of(std::span<const float> logits, TokenId token) {
  const double highest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  return highest + std::log(sum) - logits[token];
}

// Reads all of the prompts but their last tokens, prompt i in row i.
void read_prompts(ModelRows& rows, std::span<const NeedlePrompt> prompts) {
  const int64_t chunk = rows.prefill_chunk();
  while (true) {
    std::vector<RowInput> inputs;
    for (int64_t row = 0; row < std::ssize(prompts); ++row) {
      const std::vector<TokenId>& ids = prompts[row].ids;
      const int64_t begin = rows.length(row);
      const int64_t end = std::min<int64_t>(std::ssize(ids) - 1, (begin / chunk + 1) * chunk);
      if (begin < end) inputs.push_back({row, std::span(ids).subspan(begin, end - begin)});
    }
    if (inputs.empty()) return;
    rows.read(inputs);
  }
}

// Nats of one key behind each prompt, the sum over its tokens; then as if it had not been read.
std::vector<double> read_keys(ModelRows& rows, std::span<const NeedlePrompt> prompts,
                              const std::vector<std::vector<TokenId>>& keys) {
  std::vector<std::vector<TokenId>> read(prompts.size());
  std::vector<RowInput> inputs;
  for (size_t i = 0; i < prompts.size(); ++i) {
    read[i] = {prompts[i].ids.back()};
    read[i].insert(read[i].end(), keys[i].begin(), keys[i].end() - 1);
    const int64_t count = std::ssize(read[i]);
    inputs.push_back({static_cast<int64_t>(i), read[i], /*drafts=*/count, /*scored=*/count});
  }
  const NextTokenScores scores = rows.read(inputs);
  std::vector<double> sums(prompts.size(), 0);
  int64_t next = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    for (const TokenId token : keys[i]) sums[i] += nll_of(scores[next++], token);
    rows.commit(static_cast<int64_t>(i), 0);
  }
  return sums;
}

}  // namespace

std::vector<TokenId> key_tokens(const std::string& key, const Tokenizer& tokenizer) {
  return tokenizer.encode(" " + key);
}

std::vector<KeyLikelihood> key_likelihoods(ModelRows& rows, std::span<const NeedlePrompt> prompts,
                                           const Tokenizer& tokenizer) {
  std::vector<KeyLikelihood> results;
  if (prompts.empty()) return results;
  read_prompts(rows, prompts);
  std::vector<double> right, best_other(prompts.size(), std::numeric_limits<double>::infinity());
  for (size_t candidate = 0; candidate <= prompts.front().others.size(); ++candidate) {
    std::vector<std::vector<TokenId>> keys;
    for (const NeedlePrompt& prompt : prompts) {
      keys.push_back(
          key_tokens(candidate == 0 ? prompt.key : prompt.others[candidate - 1], tokenizer));
      if (std::ssize(keys.back()) > kMostTokensAlone) {
        throw Error("a key has {} tokens, at most {} can be ranked", keys.back().size(),
                    kMostTokensAlone);
      }
    }
    std::vector<double> nll = read_keys(rows, prompts, keys);
    if (candidate == 0) {
      right = std::move(nll);
      for (size_t i = 0; i < prompts.size(); ++i) {
        results.push_back({.right_nll = right[i] / static_cast<double>(keys[i].size())});
      }
    } else {
      for (size_t i = 0; i < prompts.size(); ++i) best_other[i] = std::min(best_other[i], nll[i]);
    }
  }
  for (size_t i = 0; i < prompts.size(); ++i) {
    results[i].right_is_first = right[i] < best_other[i];
    rows.reset(static_cast<int64_t>(i));
  }
  return results;
}

}  // namespace mambify
