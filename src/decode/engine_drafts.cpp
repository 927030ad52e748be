// What an engine asks its drafter for, and what it learns from the guesses.
#include <algorithm>
#include <utility>

#include "decode/engine.h"
#include "decode/engine_sequence.h"

namespace mambify {

DraftPlan Engine::plan_drafts(const std::vector<int64_t>& rows) const {
  if (!options_.adapt_draft_length) {
    return {.lengths = std::vector(rows.size(), options_.draft_length)};
  }
  std::vector<const DraftRecord*> records;
  for (int64_t r : rows) records.push_back(&rows_[r].sequence->drafts);
  return draft_lengths_.choose(records, options_.draft_length);
}

std::vector<Engine::Guess> Engine::guess(const std::vector<int64_t>& rows) {
  std::vector<Guess> guesses(rows.size());
  if (options_.drafter == nullptr) return guesses;
  const DraftPlan plan = plan_drafts(rows);
  std::vector<DraftRequest> requests;
  std::vector<size_t> places;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows_[rows[i]];
    const GenerationRequest& request = row.sequence->request;
    const auto drawn = static_cast<int64_t>(row.sequence->result.ids.size());
    const auto tokens = static_cast<int64_t>(row.tokens.size());
    // No more than could become tokens: one is drawn without any guess.
    const int64_t length =
        std::min({plan.lengths[i], request.max_tokens - drawn - 1, options_.context - tokens - 1});
    if (length < 1) continue;
    const double pays = request.sampling.temperature == 0 ? plan.min_probability : 0;
    requests.push_back(
        {.row = rows[i],
         .tokens = row.tokens,
         .length = length,
         .min_probability = options_.min_draft_probability.value_or(pays),
         .sampling = request.sampling,
         .sequence = request.sequence,
         .wants_distributions = samples_by_rejection(options_.acceptance, request.sampling)});
    places.push_back(i);
  }
  std::vector<Draft> drafts = options_.drafter->draft(requests);
  for (size_t i = 0; i < places.size(); ++i) {
    guesses[places[i]] = {.draft = std::move(drafts[i]), .wanted = requests[i].length};
  }
  return guesses;
}

void Engine::add_to_records(const std::vector<int64_t>& rows, const std::vector<Guess>& guesses,
                            const std::vector<Outcome>& outcomes, double draft_seconds,
                            double seconds) {
  TimedPass pass{.sequences = std::ssize(rows),
                 .draft_seconds = draft_seconds,
                 .verify_seconds = seconds - draft_seconds};
  bool goes_on = true;
  for (size_t i = 0; i < rows.size(); ++i) {
    DraftRecord& record = rows_[rows[i]].sequence->drafts;
    const DraftOutcome outcome{.wanted = guesses[i].wanted,
                               .given = std::ssize(guesses[i].draft.tokens),
                               .right = outcomes[i].right};
    goes_on = goes_on && (outcome.wanted == 0 || record.was_asked());
    pass.asked += outcome.asked();
    pass.given += outcome.given;
    pass.right += outcome.right;
    draft_lengths_.add_outcome(record, outcome);
  }
  if (!goes_on) pass.asked = 0;
  draft_lengths_.add_pass(pass);
}

}  // namespace mambify
