#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <utility>

#include "decode/drafter.h"
#include "decode/model_rows.h"

namespace mambify {
namespace {

class ModelDrafter : public Drafter {
 public:
  ModelDrafter(const Model& model, int64_t rows, int64_t context, int64_t max_length,
               const PackedWeights* packed, std::vector<TokenId> tokens)
      : rows_(make_model_rows(model, rows, context, std::max<int64_t>(max_length - 1, 0), packed,
                              std::move(tokens))),
        held_(rows) {}

  std::vector<Draft> draft(std::span<const DraftRequest> requests) override {
    const c10::InferenceMode inference;
    std::vector<Draft> drafts(requests.size());
    std::vector<RowInput> inputs;
    for (const DraftRequest& request : requests) inputs.push_back(catch_up(request));
    // Requests still being guessed on, by their number; all at first.
    std::vector<size_t> active(requests.size());
    for (size_t i = 0; i < active.size(); ++i) active[i] = i;
    while (!active.empty()) {
      const std::vector<TokenId> drawn = read_and_draw(inputs, requests, active, drafts);
      inputs.clear();
      std::vector<size_t> still;
      for (size_t n = 0; n < active.size(); ++n) {
        const DraftRequest& request = requests[active[n]];
        std::vector<TokenId>& guess = drafts[active[n]].tokens;
        guess.push_back(drawn[n]);
        if (static_cast<int64_t>(guess.size()) == request.length) continue;
        held_[request.row].push_back(guess.back());
        inputs.push_back(
            {.row = request.row, .tokens = std::span(guess).last(1), .drafts = 1, .scored = 1});
        still.push_back(active[n]);
      }
      active = std::move(still);
    }
    return drafts;
  }

 private:
  // The next guess of each active request; with its distribution where that is wanted.
  std::vector<TokenId> read_and_draw(std::span<const RowInput> inputs,
                                     std::span<const DraftRequest> requests,
                                     const std::vector<size_t>& active,
                                     std::vector<Draft>& drafts) {
    std::vector<TokenDraw> draws;
    bool wants_distributions = false;
    for (const size_t i : active) {
      const DraftRequest& request = requests[i];
      draws.push_back(
          {.sampling = request.sampling,
           .sequence = request.sequence,
           .position = static_cast<uint32_t>(request.tokens.size() + drafts[i].tokens.size())});
      wants_distributions = wants_distributions || request.wants_distributions;
    }
    if (!wants_distributions) return rows_->read_and_draw(inputs, draws);
    const NextTokenScores scores = rows_->read(inputs);
    std::vector<TokenId> drawn;
    for (size_t n = 0; n < active.size(); ++n) {
      const TokenDraw& draw = draws[n];
      const std::span<const float> next = scores[static_cast<int64_t>(n)];
      drawn.push_back(
          sample_token(next, draw.sampling, draw.sequence, draw.position, scores.tokens()));
      if (requests[active[n]].wants_distributions) {
        drafts[active[n]].distributions.emplace_back(next, draw.sampling, scores.tokens());
      }
    }
    return drawn;
  }

  // Takes the row's state back to what it shares with the text; gives what it has not read of it.
  RowInput catch_up(const DraftRequest& request) {
    std::vector<TokenId>& held = held_[request.row];
    const auto shared = static_cast<int64_t>(
        std::mismatch(held.begin(), held.end(), request.tokens.begin(), request.tokens.end() - 1)
            .first -
        held.begin());
    const int64_t kept = rows_->take_back(request.row, shared) ? shared : 0;
    held.assign(request.tokens.begin(), request.tokens.end());
    return {.row = request.row, .tokens = std::span(held).subspan(kept), .drafts = 0, .scored = 1};
  }

  std::unique_ptr<ModelRows> rows_;
  std::vector<std::vector<TokenId>> held_;  // what each row's state has seen
};

}  // namespace

std::unique_ptr<Drafter> model_drafter(const Model& model, int64_t rows, int64_t context,
                                       int64_t max_length, const PackedWeights* packed,
                                       std::vector<TokenId> tokens) {
  return std::make_unique<ModelDrafter>(model, rows, context, max_length, packed,
                                        std::move(tokens));
}

}  // namespace mambify
