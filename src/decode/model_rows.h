// A model and the state of the sequences that it reads side by side, one a row. Attention and
// recurrent layers are the same from here on: tokens are read, the last of them perhaps as drafts,
// and drafts are committed or forgotten.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "decode/sampler.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace mambify {

// What one row reads in a pass. The last `drafts` tokens may be taken back; what follows the last
// `scored` ones is scored. The tokens are the caller's.
struct RowInput {
  int64_t row = 0;
  std::span<const TokenId> tokens;
  int64_t drafts = 0;
  int64_t scored = 0;
};

// How what follows a scored token is drawn: see sample_token.
struct TokenDraw {
  SamplingOptions sampling;
  uint32_t sequence = 0;
  uint32_t position = 0;
};

// Scores of what follows some tokens, in fp32 on the CPU.
class NextTokenScores {
 public:
  // tokens: what each column is of, ascending, where they are not all; must outlive this.
  explicit NextTokenScores(at::Tensor scores, std::span<const TokenId> tokens = {})
      : scores_(std::move(scores)), tokens_(tokens) {}
  int64_t size() const { return scores_.size(0); }
  int64_t numbers() const { return scores_.numel(); }
  // As sample_token takes them.
  std::span<const TokenId> tokens() const { return tokens_; }
  // [vocab_size], or of each of tokens()
  std::span<const float> operator[](int64_t i) const {
    return {scores_.const_data_ptr<float>() + i * scores_.size(1),
            static_cast<size_t>(scores_.size(1))};
  }

 private:
  at::Tensor scores_;  // [n, vocab_size or tokens], contiguous
  std::span<const TokenId> tokens_;
};

// On each device a row's bits are the same whatever the other rows read, and those of up to 16
// tokens at once the same as one by one.
class ModelRows {
 public:
  virtual ~ModelRows() = default;

  // Prompts are best read in chunks that end at multiples of so many tokens.
  virtual int64_t prefill_chunk() const = 0;

  // Tokens that a row has read, drafts included.
  virtual int64_t length(int64_t row) const = 0;

  // Reads the tokens of different rows in one pass. Gives the scores behind the scored tokens, one
  // input after the other.
  virtual NextTokenScores read(std::span<const RowInput> inputs) = 0;
  // The same, and draws a token from each of the scores.
  virtual std::vector<TokenId> read_and_draw(std::span<const RowInput> inputs,
                                             std::span<const TokenDraw> draws);

  // The first `count` drafts of a row stay, the others are forgotten.
  virtual void commit(int64_t row, int64_t count) = 0;
  // Takes the row back to its first `count` tokens. False, and the row is empty, when that is
  // before its first draft.
  virtual bool take_back(int64_t row, int64_t count) = 0;
  virtual void reset(int64_t row) = 0;

  // The state on the CPU, with recurrent states brought up to what is committed; for saving and
  // comparing. No row may have drafts.
  virtual const ModelState& materialise() = 0;

  // Of the rows' states and caches, and what passes work in.
  virtual int64_t bytes() const = 0;
  // For measurements: the row is as if it had read so many tokens, whose states and caches are
  // random numbers. Throws Error where that cannot be done.
  virtual void pretend(int64_t row, int64_t tokens);
};

// context: most tokens of a row; max_drafts: most drafts of a row at any time. The model must
// outlive the rows and stay as it is, and so must `packed`, its weights, on whose device the rows
// are; null: the rows pack their own, on the CPU. tokens: those that the model's output matrix has
// rows of, where keep_outputs has left some only.
std::unique_ptr<ModelRows> make_model_rows(const Model& model, int64_t rows, int64_t context,
                                           int64_t max_drafts,
                                           const PackedWeights* packed = nullptr,
                                           std::vector<TokenId> tokens = {});

}  // namespace mambify
