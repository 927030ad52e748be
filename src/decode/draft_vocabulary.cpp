#include "decode/draft_vocabulary.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "io/json_reader.h"

namespace mambify {

std::vector<TokenId> most_frequent_tokens(std::span<const int64_t> counts, int64_t size,
                                          const Tokenizer& tokenizer) {
  const std::vector<TokenId>& ends = tokenizer.stop_ids();
  std::vector<TokenId> tokens(counts.size());
  std::iota(tokens.begin(), tokens.end(), TokenId{0});
  const auto is_kept = [&](TokenId id) {
    return std::ranges::find(ends, id) != ends.end() ||
           (counts[id] > 0 && id < tokenizer.vocab_size() && tokenizer.is_special(id));
  };
  const auto others = std::ranges::stable_partition(tokens, is_kept);
  std::ranges::stable_sort(others, std::ranges::greater(), [&](TokenId id) { return counts[id]; });
  const auto unseen = std::ranges::find(others, 0, [&](TokenId id) { return counts[id]; });
  const auto kept = std::ssize(tokens) - std::ssize(others);
  tokens.resize(std::clamp(size, kept, static_cast<int64_t>(unseen - tokens.begin())));
  std::ranges::sort(tokens);
  return tokens;
}

void write_draft_vocabulary(const fs::path& file, std::span<const TokenId> tokens) {
  write_file_atomically(file, nlohmann::json{{"tokens", tokens}}.dump() + "\n");
}

std::vector<TokenId> read_draft_vocabulary(const fs::path& file, int64_t vocab_size) {
  const nlohmann::json json = read_json(file);
  const auto ids = JsonReader(json, file.string()).require<std::vector<int64_t>>("tokens");
  if (ids.empty()) throw Error("{}: tokens is empty, expected ids to guess among", file.string());
  std::vector<TokenId> tokens;
  for (const int64_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      throw Error("{}: tokens holds {}, expected ids from 0 to {}", file.string(), id,
                  vocab_size - 1);
    }
    tokens.push_back(static_cast<TokenId>(id));
  }
  std::ranges::sort(tokens);
  if (const auto twice = std::ranges::adjacent_find(tokens); twice != tokens.end()) {
    throw Error("{}: tokens holds {} twice", file.string(), *twice);
  }
  return tokens;
}

void keep_outputs(Model& model, std::span<const TokenId> tokens) {
  const std::vector<int64_t> rows(tokens.begin(), tokens.end());
  model.lm_head = model.lm_head.index_select(0, at::tensor(rows, at::kLong));
  model.config.tie_embeddings = false;
}

}  // namespace mambify
