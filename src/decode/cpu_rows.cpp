#include "decode/cpu_rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <optional>
#include <utility>

#include "kernels/parallel.h"

namespace mambify {
namespace {

class CpuRows : public ModelRows {
 public:
  CpuRows(const Model& model, int64_t rows, int64_t context, int64_t max_drafts,
          const PackedWeights* packed, std::vector<TokenId> tokens)
      : model_(model),
        tokens_(std::move(tokens)),
        own_packed_(packed == nullptr ? std::optional<PackedWeights>(model) : std::nullopt),
        packed_(packed == nullptr ? &*own_packed_ : packed),
        state_(model.config, rows, context, model.embedding.options(), max_drafts) {}

  int64_t prefill_chunk() const override { return 256; }
  int64_t length(int64_t row) const override { return state_.lengths[row]; }

  NextTokenScores read(std::span<const RowInput> inputs) override {
    const kernels::KernelsHaveTheThreads kernels_have_the_threads;
    std::vector<int64_t> ids, scored;
    for (const RowInput& input : inputs) {
      ids.insert(ids.end(), input.tokens.begin(), input.tokens.end());
      const auto end = static_cast<int64_t>(ids.size());
      for (int64_t token = end - input.scored; token < end; ++token) scored.push_back(token);
    }
    at::Tensor hidden =
        hidden_states(model_, at::tensor(ids, at::kLong), context_for(inputs), &state_);
    if (scored.empty()) return NextTokenScores(at::empty({0, model_.config.vocab_size}));
    if (scored.size() < ids.size()) hidden = hidden.index_select(0, at::tensor(scored, at::kLong));
    return NextTokenScores(logits(model_, hidden, packed_).to(at::kFloat).contiguous(), tokens_);
  }

  void commit(int64_t row, int64_t count) override { state_.commit(row, count); }

  bool take_back(int64_t row, int64_t count) override {
    if (state_.take_back(row, count)) return true;
    state_.reset(row);
    return false;
  }

  void reset(int64_t row) override { state_.reset(row); }
  int64_t bytes() const override { return state_.bytes(); }

  const ModelState& materialise() override {
    std::vector<RowInput> inputs;
    for (int64_t row = 0; row < state_.rows(); ++row) {
      TORCH_CHECK(state_.drafts(row) == 0, "materialise: row ", row, " has drafts");
      if (state_.pending[row] > 0) inputs.push_back({.row = row, .tokens = {}});
    }
    if (inputs.empty()) return state_;
    // A pass over no new token replays the pending ones.
    const Context context = context_for(inputs);
    const at::Tensor nothing = at::empty({0, model_.config.d_model}, model_.embedding.options());
    for (int64_t layer = 0; layer < model_.config.n_layer(); ++layer) {
      const Mixer& mixer = model_.blocks[layer].mixer;
      if (kind_of(mixer) == MixerKind::attention) continue;
      forward(model_.config, mixer, nothing, context, &state_.layers[layer]);
    }
    advance(state_, context);
    return state_;
  }

 private:
  Context context_for(std::span<const RowInput> inputs) const {
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

  const Model& model_;
  const std::vector<TokenId> tokens_;  // of the output matrix's rows; empty: all
  const std::optional<PackedWeights> own_packed_;
  const PackedWeights* packed_;
  ModelState state_;
};

}  // namespace

std::unique_ptr<ModelRows> make_cpu_rows(const Model& model, int64_t rows, int64_t context,
                                         int64_t max_drafts, const PackedWeights* packed,
                                         std::vector<TokenId> tokens) {
  return std::make_unique<CpuRows>(model, rows, context, max_drafts, packed, std::move(tokens));
}

}  // namespace mambify
