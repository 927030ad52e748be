// Preference pairs as tokens, and packed into batches.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/batch.h"
#include "data/dataset.h"
#include "data/pairs.h"

namespace mambify {

// Two documents that begin with the same prompt. Both count the assistant's tokens behind it.
struct DocumentPair {
  Document chosen, rejected;

  int64_t tokens() const { return std::ssize(chosen.ids) + std::ssize(rejected.ids); }
};

struct PairDataset {
  std::vector<DocumentPair> pairs;
  int64_t too_long = 0;  // pairs left out because a side is longer than max_length
  int64_t equal = 0;     // or because both answers are the same tokens: nothing to prefer

  int64_t tokens() const;
};

// Tokenises pairs through the chat template, chat_template as in tokenize_examples. A side longer
// than max_length tokens is not cut, since a cut answer is another answer. Throws Error when no
// pair is left.
PairDataset tokenize_pairs(std::span<const PreferencePair> pairs, const Tokenizer& tokenizer,
                           const std::string& chat_template, int64_t max_length);

// Pairs in an order shuffled anew each epoch. Positions are pairs. A batch holds whole pairs,
// chosen and rejected as documents 2 i and 2 i + 1, as many as fit into the tokens.
class PairStream : public BatchStream {
 public:
  // The dataset must outlive the stream.
  PairStream(const PairDataset& dataset, uint64_t seed);

  // Throws Error when not even the first pair fits.
  Batch batch(int64_t position, int64_t tokens) override;

 private:
  const DocumentPair& pair_at(int64_t position);

  const PairDataset* dataset_;
  uint64_t seed_;
  int64_t epoch_ = -1;  // of order_
  std::vector<int64_t> order_;
};

}  // namespace mambify
