#include "decode/model_rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

namespace mambify {

ModelRows::ModelRows(const Model& model, int64_t rows, int64_t context, int64_t max_drafts,
                     const PackedWeights* packed)
    : model_(model),
      own_packed_(packed == nullptr ? std::optional<PackedWeights>(model) : std::nullopt),
      packed_(packed == nullptr ? &*own_packed_ : packed),
      state_(model.config, rows, context, model.embedding.options(), max_drafts) {}

Context ModelRows::context_for(std::span<const RowInput> inputs) const {
  Segments segments{.starts = {0}};
  std::vector<int64_t> rows, drafts;
  for (const RowInput& input : inputs) {
    segments.starts.push_back(segments.tokens() + static_cast<int64_t>(input.tokens.size()));
    rows.push_back(input.row);
    drafts.push_back(input.drafts);
  }
  Context context = make_context(model_.config, std::move(segments), model_.embedding.options(),
                                 &state_, std::move(rows), drafts);
  context.packed = packed_;
  return context;
}

at::Tensor ModelRows::forward(std::span<const RowInput> inputs) {
  std::vector<int64_t> ids;
  for (const RowInput& input : inputs) {
    ids.insert(ids.end(), input.tokens.begin(), input.tokens.end());
  }
  const at::Tensor tokens = at::tensor(ids, at::kLong).to(model_.embedding.device());
  return hidden_states(model_, tokens, context_for(inputs), &state_);
}

NextTokenScores ModelRows::next_token_scores(const at::Tensor& hidden,
                                             const std::vector<int64_t>& tokens) const {
  at::Tensor chosen = hidden;
  if (static_cast<int64_t>(tokens.size()) < hidden.size(0)) {
    chosen = hidden.index_select(0, at::tensor(tokens, at::kLong).to(hidden.device()));
  }
  return NextTokenScores(logits(model_, chosen, packed_)
                             .to(at::TensorOptions(at::kCPU).dtype(at::kFloat))
                             .contiguous());
}

bool ModelRows::take_back(int64_t row, int64_t count) {
  const int64_t before_drafts = state_.lengths[row] - state_.drafts(row);
  if (count < before_drafts) {
    state_.reset(row);
    return false;
  }
  state_.commit(row, count - before_drafts);
  return true;
}

const ModelState& ModelRows::materialise() {
  std::vector<RowInput> inputs;
  for (int64_t row = 0; row < state_.rows(); ++row) {
    TORCH_CHECK(state_.drafts(row) == 0, "materialise: row ", row, " has drafts");
    if (state_.pending[row] > 0) inputs.push_back({.row = row, .tokens = {}, .drafts = 0});
  }
  if (inputs.empty()) return state_;
  // A pass over no new token replays the pending ones.
  const Context context = context_for(inputs);
  const at::Tensor nothing = at::empty({0, model_.config.d_model}, model_.embedding.options());
  for (int64_t layer = 0; layer < model_.config.n_layer(); ++layer) {
    const Mixer& mixer = model_.blocks[layer].mixer;
    if (kind_of(mixer) == MixerKind::attention) continue;
    mambify::forward(model_.config, mixer, nothing, context, &state_.layers[layer]);
  }
  advance(state_, context);
  return state_;
}

}  // namespace mambify
