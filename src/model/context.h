// What one forward pass shares between its layers, and what decoding keeps between passes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/projection.h"
#include "ops/segments.h"

namespace mambify {

// One layer's memory for a fixed number of rows (sequences decoded side by side). Attention uses
// the first two tensors, Mamba the last two. State is fp32, keys and values in the compute dtype.
struct MixerState {
  at::Tensor keys, values;  // [rows, n_kv_heads, capacity, head_dim]
  at::Tensor window;        // [rows, conv channels, d_conv - 1]
  at::Tensor state;         // [rows, d_inner, d_state] or [rows, n_heads, head_dim, d_state]
};

struct ModelState {
  // capacity: the most tokens a row may hold; recurrent layers do not depend on it.
  ModelState(const ModelConfig& config, int64_t rows, int64_t capacity,
             const at::TensorOptions& options);

  int64_t rows() const { return static_cast<int64_t>(lengths.size()); }
  // Forgets everything of one row, so that a new sequence can start there.
  void reset(int64_t row);
  int64_t bytes() const;

  int64_t capacity;
  std::vector<int64_t> lengths;  // tokens seen, per row
  std::vector<MixerState> layers;
};

// The documents of one pass and what follows from where they stand.
struct Context {
  Segments segments;
  at::Tensor cos, sin;             // [tokens, head_dim / 2], fp32; undefined without rotary
  std::vector<int64_t> rows;       // per document, its row in the state; empty without a state
  std::vector<int64_t> positions;  // per document, the position of its first token

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
// `options` are those of the activations. rows: empty means document i continues row i.
Context make_context(const ModelConfig& config, Segments segments, const at::TensorOptions& options,
                     const ModelState* state = nullptr, std::vector<int64_t> rows = {});

}  // namespace mambify
