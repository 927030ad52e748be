#include "model/context.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "ops/cuda.h"
#include "ops/rotary.h"

namespace mambify {
namespace {

bool are_neighbours(const std::vector<int64_t>& rows) {
  for (size_t i = 1; i < rows.size(); ++i) {
    if (rows[i] != rows[i - 1] + 1) return false;
  }
  return true;
}

MixerState allocate(const ModelConfig& config, MixerKind kind, int64_t rows, int64_t capacity,
                    int64_t max_drafts, const at::TensorOptions& options) {
  const auto fp32 = options.dtype(at::kFloat);
  MixerState state;
  switch (kind) {
    case MixerKind::attention: {
      const AttentionConfig& sizes = config.attention;
      state.keys = at::zeros({rows, sizes.n_kv_heads, capacity, sizes.head_dim}, options);
      state.values = at::zeros_like(state.keys);
      break;
    }
    case MixerKind::mamba1: {
      const Mamba1Config& sizes = config.mamba1;
      state.window = at::zeros({rows, sizes.d_inner, sizes.d_conv - 1}, fp32);
      state.state = at::zeros({rows, sizes.d_inner, sizes.d_state}, fp32);
      state.pending = at::zeros({rows, max_drafts, sizes.recurrent_inputs()}, options);
      break;
    }
    case MixerKind::mamba2: {
      const Mamba2Config& sizes = config.mamba2;
      state.window = at::zeros({rows, sizes.conv_channels(), sizes.d_conv - 1}, fp32);
      state.state = at::zeros({rows, sizes.n_heads, sizes.head_dim, sizes.d_state}, fp32);
      state.pending = at::zeros({rows, max_drafts, sizes.recurrent_inputs()}, options);
      break;
    }
  }
  return state;
}

// Keys and values past a row's length are never read unmasked, so only recurrent state and what a
// mask multiplies (a stale NaN) must be cleared.
void zero_row(at::Tensor& tensor, int64_t row) {
  if (tensor.defined()) tensor.select(0, row).zero_();
}

}  // namespace

int64_t RowCounts::commit_of(int64_t row, int64_t new_tokens, int64_t new_drafts) const {
  const int64_t length = pending[row] + new_tokens;
  TORCH_CHECK(drafts(row) == 0 || new_drafts == new_tokens, "row ", row, " has ", drafts(row),
              " drafts, which must be committed or forgotten first");
  const int64_t commit = drafts(row) > 0 ? certain[row] : length - new_drafts;
  TORCH_CHECK(length - commit <= max_drafts, "row ", row, " would have ", length - commit,
              " drafts, and the state holds ", max_drafts);
  return commit;
}

void RowCounts::advance(int64_t row, int64_t new_tokens, int64_t commit) {
  lengths[row] += new_tokens;
  pending[row] += new_tokens - commit;
  certain[row] = 0;
}

void RowCounts::commit(int64_t row, int64_t count) {
  TORCH_CHECK(count >= 0 && count <= drafts(row), "commit: ", count, " of ", drafts(row),
              " drafts of row ", row);
  lengths[row] -= drafts(row) - count;
  certain[row] += count;
  pending[row] = certain[row];
}

bool RowCounts::take_back(int64_t row, int64_t count) {
  const int64_t before_drafts = lengths[row] - drafts(row);
  if (count < before_drafts) return false;
  commit(row, count - before_drafts);
  return true;
}

ModelState::ModelState(const ModelConfig& config, int64_t rows, int64_t capacity,
                       const at::TensorOptions& options, int64_t max_drafts)
    : RowCounts(rows, max_drafts), capacity(capacity) {
  for (MixerKind kind : config.layers) {
    layers.push_back(allocate(config, kind, rows, capacity, max_drafts, options));
  }
}

void ModelState::reset(int64_t row) {
  RowCounts::clear(row);
  for (MixerState& layer : layers) {
    zero_row(layer.window, row);
    zero_row(layer.state, row);
  }
}

int64_t ModelState::bytes() const {
  int64_t total = 0;
  for (const MixerState& layer : layers) {
    for (const at::Tensor* tensor :
         {&layer.keys, &layer.values, &layer.window, &layer.state, &layer.pending}) {
      if (tensor->defined()) total += static_cast<int64_t>(tensor->nbytes());
    }
  }
  return total;
}

at::Tensor select_rows(const at::Tensor& state, const std::vector<int64_t>& rows) {
  if (are_neighbours(rows)) {
    return state.narrow(0, rows.front(), static_cast<int64_t>(rows.size()));
  }
  return state.index_select(0, at::tensor(rows, state.options().dtype(at::kLong)));
}

void store_rows(at::Tensor& state, const std::vector<int64_t>& rows, const at::Tensor& selected) {
  if (are_neighbours(rows)) return;
  state.index_copy_(0, at::tensor(rows, state.options().dtype(at::kLong)), selected);
}

Context make_context(const ModelConfig& config, Segments segments, const at::TensorOptions& options,
                     const ModelState* state, std::vector<int64_t> rows,
                     const std::vector<int64_t>& drafts) {
  Context context;
  context.segments = std::move(segments);
  place_on(context.segments, options.device());
  const Segments& documents = context.segments;
  context.positions.assign(documents.documents(), 0);
  if (state != nullptr) {
    if (rows.empty()) {
      rows.resize(documents.documents());
      std::iota(rows.begin(), rows.end(), int64_t{0});
    }
    for (size_t d = 0; d < rows.size(); ++d) context.positions[d] = state->lengths[rows[d]];
    context.replay = Replay(documents, *state, rows, drafts, options.device());
    context.rows = std::move(rows);
  } else {
    context.replay = Replay(documents);
  }

  const bool has_attention = config.count(MixerKind::attention) > 0;
  const bool rotated_mamba = config.count(MixerKind::mamba2) > 0 && config.mamba2.rotary;
  if (!has_attention && !rotated_mamba) return context;

  const Segments& replayed = context.replay.segments();
  const auto longs = at::TensorOptions(at::kLong);
  at::Tensor positions = at::empty({replayed.tokens()}, longs);
  at::Tensor token_rows = at::zeros({documents.tokens()}, longs);
  for (int64_t d = 0; d < documents.documents(); ++d) {
    int64_t* first = positions.data_ptr<int64_t>() + replayed.begin(d);
    const int64_t pending = replayed.length(d) - documents.length(d);
    std::iota(first, first + replayed.length(d), context.positions[d] - pending);
    if (state != nullptr) {
      token_rows.narrow(0, documents.begin(d), documents.length(d)).fill_(context.rows[d]);
    }
  }
  positions = sent_to(positions, options.device());
  const RotaryTable table =
      rotary_table(config.attention.rope, config.attention.head_dim, positions);
  context.replay_cos = table.cos;
  context.replay_sin = table.sin;
  context.cos = context.replay.of_new_tokens(table.cos);
  context.sin = context.replay.of_new_tokens(table.sin);
  if (state == nullptr || !has_attention) return context;

  context.token_positions = context.replay.of_new_tokens(positions);
  context.token_rows = token_rows.to(options.device());
  return context;
}

void advance(ModelState& state, const Context& context) {
  for (size_t d = 0; d < context.rows.size(); ++d) {
    state.advance(context.rows[d], context.segments.length(d),
                  context.replay.segments().commits[d]);
  }
}

}  // namespace mambify
