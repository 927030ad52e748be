// A model and the state of the sequences that it reads side by side, one a row. Attention and
// recurrent layers are the same from here on: tokens are read, the last of them perhaps as drafts,
// and drafts are committed or forgotten.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "model/model.h"
#include "text/tokenizer.h"

namespace mambify {

// What one row reads in a pass. The last `drafts` tokens may be taken back.
struct RowInput {
  int64_t row = 0;
  std::vector<TokenId> tokens;
  int64_t drafts = 0;
};

// Scores of what follows some tokens, in fp32 on the CPU.
class NextTokenScores {
 public:
  explicit NextTokenScores(at::Tensor scores) : scores_(std::move(scores)) {}
  int64_t size() const { return scores_.size(0); }
  // [vocab_size]
  std::span<const float> operator[](int64_t i) const {
    return {scores_.const_data_ptr<float>() + i * scores_.size(1),
            static_cast<size_t>(scores_.size(1))};
  }

 private:
  at::Tensor scores_;  // [n, vocab_size], contiguous
};

class ModelRows {
 public:
  // context: most tokens of a row; max_drafts: most drafts of a row at any time. The model must
  // outlive this and stay as it is, and so must `packed`, its weights; null: this packs its own.
  ModelRows(const Model& model, int64_t rows, int64_t context, int64_t max_drafts,
            const PackedWeights* packed = nullptr);
  ModelRows(const ModelRows&) = delete;
  ModelRows& operator=(const ModelRows&) = delete;

  // Tokens that a row has read, drafts included.
  int64_t length(int64_t row) const { return state_.lengths[row]; }

  // Reads the tokens of different rows in one pass. Returns their hidden states, [tokens, d_model],
  // one input after the other. On the CPU, a row's bits are the same whatever the other rows read,
  // and those of up to 16 tokens at once the same as one by one.
  at::Tensor forward(std::span<const RowInput> inputs);
  // What follows the tokens of the given numbers in `hidden`.
  NextTokenScores next_token_scores(const at::Tensor& hidden,
                                    const std::vector<int64_t>& tokens) const;

  // The first `count` drafts of a row stay, the others are forgotten.
  void commit(int64_t row, int64_t count) { state_.commit(row, count); }
  // Takes the row back to its first `count` tokens. False, and the row is empty, when that is
  // before its first draft.
  bool take_back(int64_t row, int64_t count);
  void reset(int64_t row) { state_.reset(row); }

  // Brings recurrent states up to what is committed; for saving and comparing them. No row may have
  // drafts.
  const ModelState& materialise();

 private:
  Context context_for(std::span<const RowInput> inputs) const;

  const Model& model_;
  const std::optional<PackedWeights> own_packed_;
  const PackedWeights* packed_;
  ModelState state_;
};

}  // namespace mambify
