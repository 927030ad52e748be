#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "decode/drafter.h"
#include "decode/model_rows.h"
#include "kernels/parallel.h"

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
    certainties_.assign(requests.size(), 1);
    // Requests still being guessed on, by their number; all at first.
    std::vector<size_t> active(requests.size());
    for (size_t i = 0; i < active.size(); ++i) active[i] = i;
    while (!active.empty()) {
      const std::vector<std::optional<TokenId>> drawn =
          read_and_draw(inputs, requests, active, drafts);
      inputs.clear();
      std::vector<size_t> still;
      for (size_t n = 0; n < active.size(); ++n) {
        if (!drawn[n]) continue;
        const DraftRequest& request = requests[active[n]];
        std::vector<TokenId>& guess = drafts[active[n]].tokens;
        guess.push_back(*drawn[n]);
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
  // The next guess of each active request, with its distribution where that is wanted; none where
  // the request asks for more certainty.
  std::vector<std::optional<TokenId>> read_and_draw(std::span<const RowInput> inputs,
                                                    std::span<const DraftRequest> requests,
                                                    const std::vector<size_t>& active,
                                                    std::vector<Draft>& drafts) {
    std::vector<TokenDraw> draws;
    bool needs_scores = false;
    for (const size_t i : active) {
      const DraftRequest& request = requests[i];
      draws.push_back(
          {.sampling = request.sampling,
           .sequence = request.sequence,
           .position = static_cast<uint32_t>(request.tokens.size() + drafts[i].tokens.size())});
      needs_scores = needs_scores || request.wants_distributions || request.min_probability > 0;
    }
    if (!needs_scores) {
      const std::vector<TokenId> drawn = rows_->read_and_draw(inputs, draws);
      return {drawn.begin(), drawn.end()};
    }
    const NextTokenScores scores = rows_->read(inputs);
    std::vector<std::optional<TokenId>> drawn(active.size());
    kernels::parallel_tasks(scores.size(), scores.numbers(), [&](int64_t n) {
      const size_t i = active[n];
      const std::span<const float> next = scores[n];
      if (!is_certain(requests[i], next, certainties_[i])) return;
      const TokenDraw& draw = draws[n];
      drawn[n] = sample_token(next, draw.sampling, draw.sequence, draw.position, scores.tokens());
      if (requests[i].wants_distributions) {
        drafts[i].distributions.emplace_back(next, draw.sampling, scores.tokens());
      }
    });
    return drawn;
  }

  // Whether one more guess is as likely as the request asks for. certainty: that of the draft so
  // far.
  //
  // It goes by the likeliest token, not by the one that is drawn: were it up to the draw, the
  // positions at which the model draws by itself, with the same random numbers, would be those at
  // which these turned out in some way, and its draws no longer distributed as they should be.
  static bool is_certain(const DraftRequest& request, std::span<const float> next,
                         double& certainty) {
    if (request.min_probability == 0) return true;
    certainty *= likeliest_probability(next);
    return certainty >= request.min_probability;
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
  std::vector<double> certainties_;         // of each request's draft
};

}  // namespace

std::unique_ptr<Drafter> model_drafter(const Model& model, int64_t rows, int64_t context,
                                       int64_t max_length, const PackedWeights* packed,
                                       std::vector<TokenId> tokens) {
  return std::make_unique<ModelDrafter>(model, rows, context, max_length, packed,
                                        std::move(tokens));
}

}  // namespace mambify
