// What one forward pass shares between its layers, and what decoding keeps between passes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/projection.h"
#include "model/replay.h"
#include "ops/segments.h"

namespace mambify {

// One layer's memory for a fixed number of rows (sequences decoded side by side). Attention uses
// the first two tensors, Mamba the others. State is fp32, the rest in the compute dtype.
struct MixerState {
  at::Tensor keys, values;  // [rows, n_kv_heads, capacity, head_dim]
  at::Tensor window;        // [rows, conv channels, d_conv - 1]
  at::Tensor state;         // [rows, d_inner, d_state] or [rows, n_heads, head_dim, d_state]
  at::Tensor pending;       // [rows, max_drafts, what the mixer computes its state from]
};

// What decoding knows of the tokens of its rows. The last ones of a row may be drafts: seen, but
// perhaps not to stay. Keys and values of drafts are written and, when they go, written over. A
// recurrent state cannot be taken back, so it stops before the first draft; the inputs of what
// follows are kept as pending, and the next pass replays those that stayed (Algorithm 2 of arXiv
// 2408.15237).
struct RowCounts {
  // max_drafts: the most drafts of a row at any time.
  RowCounts(int64_t rows, int64_t max_drafts)
      : max_drafts(max_drafts), lengths(rows, 0), pending(rows, 0), certain(rows, 0) {}

  int64_t rows() const { return static_cast<int64_t>(lengths.size()); }
  int64_t drafts(int64_t row) const { return pending[row] - certain[row]; }
  // How many of a row's pending and new tokens, the last `new_drafts` of which are drafts,
  // recurrent states hold after a pass. Throws c10::Error where the row cannot take them.
  int64_t commit_of(int64_t row, int64_t new_tokens, int64_t new_drafts) const;
  // What such a pass does to the counts; commit: what commit_of gave.
  void advance(int64_t row, int64_t new_tokens, int64_t commit);
  // The first `count` drafts of a row stay, the others are forgotten.
  void commit(int64_t row, int64_t count);
  // Takes a row back to its first `count` tokens. False when that is before its first draft.
  bool take_back(int64_t row, int64_t count);
  void clear(int64_t row) { lengths[row] = pending[row] = certain[row] = 0; }

  int64_t max_drafts;
  std::vector<int64_t> lengths;  // tokens seen, per row, drafts included
  std::vector<int64_t> pending;  // how many of them recurrent states do not hold yet
  std::vector<int64_t> certain;  // how many of the pending ones stay
};

// The counts and the memory of every layer.
struct ModelState : RowCounts {
  // capacity: the most tokens a row may hold; recurrent layers do not depend on it.
  ModelState(const ModelConfig& config, int64_t rows, int64_t capacity,
             const at::TensorOptions& options, int64_t max_drafts = 0);

  // Forgets everything of one row, so that a new sequence can start there.
  void reset(int64_t row);
  int64_t bytes() const;

  int64_t capacity;
  std::vector<MixerState> layers;
};

// A document of up to so many tokens is a step of decoding, perhaps with drafts: attention computes
// each token by itself, with the bits that it has as the only one.
inline constexpr int64_t kMostTokensAlone = 16;

// The documents of one pass and what follows from where they stand.
struct Context {
  Segments segments;
  at::Tensor cos, sin;                // [tokens, head_dim / 2], fp32; undefined without rotary
  at::Tensor replay_cos, replay_sin;  // the same of replay.segments()'s tokens
  std::vector<int64_t> rows;          // per document, its row in the state; empty without a state
  std::vector<int64_t> positions;     // per document, the position of its first token

  Replay replay;  // what recurrent layers compute; without a state, the segments

  // With a state and attention layers only: where each token's key and value go, [tokens] int64.
  at::Tensor token_rows, token_positions;

  // Null: products are with the model's own tensors.
  const PackedWeights* packed = nullptr;
};

// The rows of a state's tensor, [rows, ...]: a view where they are neighbours, a copy otherwise.
at::Tensor select_rows(const at::Tensor& state, const std::vector<int64_t>& rows);
// Writes back what select_rows gave, if that was a copy.
void store_rows(at::Tensor& state, const std::vector<int64_t>& rows, const at::Tensor& selected);

// Positions start at 0 without a state and at the rows' lengths with one.
// `options` are those of the activations. rows: empty means document i continues row i. drafts: how
// many of each document's last tokens are drafts; empty: none. While a row has drafts that were
// neither committed nor forgotten, it takes only more of them.
Context make_context(const ModelConfig& config, Segments segments, const at::TensorOptions& options,
                     const ModelState* state = nullptr, std::vector<int64_t> rows = {},
                     const std::vector<int64_t>& drafts = {});
// What a pass with this context has done to the rows: hidden_states calls it at its end.
void advance(ModelState& state, const Context& context);

}  // namespace mambify
