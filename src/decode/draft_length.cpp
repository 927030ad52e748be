#include "decode/draft_length.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace mambify {
namespace {

// What a pass adds to is worth this much when the next one of its kind comes.
constexpr double kRecordMemory = 0.95, kAllRecordsMemory = 0.99, kCostMemory = 0.97;
// Sequences differ: a new one is expected to be between the others and this.
constexpr double kUnknownAcceptance = 0.5;
// A guess is believed to cost this much of a pass until one was timed; after that, to be all that
// passes with and without guesses differ by, as if that had been measured so many times.
constexpr double kPriorGuess = 0.1, kPriorPasses = 4;
// Passes with guesses must promise so much more than those without: what guesses gain is less
// certain than what they cost.
constexpr double kMargin = 0.02;
// Guesses that are certain are made whatever they were seen to cost, which they show anew.
constexpr double kMostMinProbability = 0.9;
// What guesses that only show how things stand may cost, of all time.
constexpr double kProbeShare = 0.01;
// What guesses may have lost before no drafter is asked that would have to catch up: of all time,
// and plain passes besides. How long it takes one to read what it has missed is in no cost below.
constexpr double kLossShare = 0.01, kLossPasses = 4;
constexpr int64_t kLeastPatience = 8, kMostLeastPatience = 64, kMostPatience = 256;
// Passes with guesses after which one without is timed; at first, fewer.
constexpr int64_t kPassesBetweenPlain = 64;

}  // namespace

void DraftRecord::add(const DraftOutcome& outcome, int64_t least_patience, int64_t pause) {
  const auto [wanted, given, right] = outcome;
  const bool was_probe = must_probe();
  was_asked_ = wanted > 0;
  if (was_asked_) {
    asked_ = asked_ * kRecordMemory + static_cast<double>(outcome.asked());
    given_ = given_ * kRecordMemory + static_cast<double>(given);
  }
  if (given == 0) {
    ++passes_without_;
    if (was_asked_ && was_probe) passes_without_ = patience_ - pause;
    return;
  }
  passes_without_ = 0;
  if (right > 0) {
    patience_ = least_patience;
  } else if (was_probe) {
    patience_ = std::min(std::max(2 * patience_, least_patience), kMostPatience);
  }
  // Guesses behind the first wrong one say nothing.
  tried_ = tried_ * kRecordMemory + static_cast<double>(std::min(right + 1, given));
  right_ = right_ * kRecordMemory + static_cast<double>(right);
}

DraftRecord DraftLengths::begin() const {
  // One wrong guess is enough to tell; without it, none would.
  return DraftRecord((right_ / tried_ + kUnknownAcceptance) / 2, (given_ / asked_ + 1) / 2,
                     least_patience(cost()));
}

void DraftLengths::add_pass(const TimedPass& pass) {
  sequences_ = pass.sequences;
  // A pass that something else on the machine held up says little about the next.
  const Cost expected = cost();
  add_savings(pass, expected);
  const auto asked = static_cast<double>(pass.asked), given = static_cast<double>(pass.given);
  if (pass.asked > 0) {
    double seconds = pass.draft_seconds;
    if (drafts_ > 2) seconds = std::min(seconds, 2 * asked * expected.draft);
    drafts_ = drafts_ * kCostMemory + asked;
    draft_seconds_ = draft_seconds_ * kCostMemory + seconds;
  }
  double seconds = pass.verify_seconds;
  if (pass.given == 0) {
    if (plain_weight_ > 2) seconds = std::min(seconds, 2 * expected.plain);
    plain_weight_ = plain_weight_ * kCostMemory + 1;
    plain_seconds_ = plain_seconds_ * kCostMemory + seconds;
    ++plain_passes_;
    passes_since_plain_ = 0;
    return;
  }
  ++passes_since_plain_;
  if (weight_ > 2) seconds = std::min(seconds, 2 * (expected.pass + given * expected.guess));
  for (double* sum : {&weight_, &guesses_, &squares_, &seconds_, &products_}) *sum *= kCostMemory;
  weight_ += 1;
  guesses_ += given;
  squares_ += given * given;
  seconds_ += seconds;
  products_ += seconds * given;
}

void DraftLengths::add_outcome(DraftRecord& record, const DraftOutcome& outcome) {
  const Cost cost = this->cost();
  record.add(outcome, least_patience(cost), passes_worth(cost.draft, cost));
  const auto [wanted, given, right] = outcome;
  if (wanted == 0) return;
  asked_ = asked_ * kAllRecordsMemory + static_cast<double>(outcome.asked());
  given_ = given_ * kAllRecordsMemory + static_cast<double>(given);
  if (given == 0) return;
  tried_ = tried_ * kAllRecordsMemory + static_cast<double>(std::min(right + 1, given));
  right_ = right_ * kAllRecordsMemory + static_cast<double>(right);
}

void DraftLengths::add_savings(const TimedPass& pass, const Cost& expected) {
  all_seconds_ += pass.draft_seconds + pass.verify_seconds;
  if (plain_weight_ == 0) return;
  double saved = -pass.draft_seconds;
  if (pass.given > 0) {
    const auto given = static_cast<double>(pass.given), right = static_cast<double>(pass.right);
    saved += expected.plain * (1 + right / static_cast<double>(pass.sequences)) -
             std::min(pass.verify_seconds, 2 * (expected.pass + given * expected.guess));
  }
  saved_seconds_ = std::min(saved_seconds_ + saved, 0.0);
}

bool DraftLengths::has_lost_too_much(const Cost& cost) const {
  return saved_seconds_ < -(kLossShare * all_seconds_ + kLossPasses * cost.plain);
}

DraftLengths::Cost DraftLengths::cost() const {
  Cost cost = verify_cost();
  if (drafts_ > 0) cost.draft = draft_seconds_ / drafts_;
  return cost;
}

DraftLengths::Cost DraftLengths::verify_cost() const {
  const double unknown = plain_weight_ > 0 ? plain_seconds_ / plain_weight_ : 1;
  if (weight_ == 0) {
    const double guess = kPriorGuess * unknown;
    return {.plain = unknown, .pass = unknown, .guess = guess, .mean_guess = guess};
  }
  const double mean_guesses = guesses_ / weight_, mean_seconds = seconds_ / weight_;
  const double plain =
      plain_weight_ > 0 ? unknown : mean_seconds / (1 + kPriorGuess * mean_guesses);
  // Least squares of seconds = pass + guesses * guess, drawn towards pass = plain.
  const double believed = (mean_seconds - plain) / mean_guesses;
  const double variance = squares_ - guesses_ * mean_guesses;
  const double covariance = products_ - seconds_ * mean_guesses;
  const double guess = (covariance + kPriorPasses * believed) / (variance + kPriorPasses);
  // Timing noise must not make guesses free, nor passes with them faster than without.
  const double least = 0.01 * mean_seconds / (1 + mean_guesses);
  const double bounded = std::clamp(guess, least, std::max(least, believed));
  return {.plain = plain,
          .pass = mean_seconds - bounded * mean_guesses,
          .guess = bounded,
          .mean_guess = std::max(least, believed)};
}

int64_t DraftLengths::passes_worth(double seconds, const Cost& cost) const {
  const double passes =
      std::ceil(static_cast<double>(sequences_) * seconds / (cost.plain * kProbeShare));
  return static_cast<int64_t>(std::min(passes, static_cast<double>(kMostLeastPatience)));
}

int64_t DraftLengths::least_patience(const Cost& cost) const {
  const double probe = cost.draft + cost.pass + cost.guess - cost.plain;
  return std::max(passes_worth(probe, cost), kLeastPatience);
}

bool DraftLengths::must_time_a_plain_pass() const {
  const int64_t between = plain_passes_ < 6 ? int64_t{1} << plain_passes_ : kPassesBetweenPlain;
  return plain_passes_ == 0 || passes_since_plain_ >= between;
}

DraftPlan DraftLengths::choose(std::span<const DraftRecord* const> records, int64_t most) const {
  std::vector<int64_t> lengths(records.size(), 0);
  if (must_time_a_plain_pass()) return {.lengths = std::move(lengths)};
  const Cost cost = this->cost();
  // Where guesses have lost too much, no drafter is asked that would have to catch up.
  const bool may_begin = !has_lost_too_much(cost);
  const auto most_of = [&](size_t i) { return may_begin || records[i]->was_asked() ? most : 0; };
  // A guess pays when the tokens expected of it, per second, exceed those of the passes as a whole;
  // these are what the choice makes them, so that it is repeated until they no longer grow
  // (Dinkelbach's method for the maximum of a ratio).
  const auto sequences = static_cast<double>(records.size());
  double rate = 0, with_guesses = 0;  // the latter: the share of passes
  for (bool grows = true; grows;) {
    double tokens = sequences, seconds = cost.plain, without = 1;
    for (size_t i = 0; i < records.size(); ++i) {
      const double given = records[i]->given(), right = given * records[i]->acceptance();
      const double step = cost.draft + given * cost.guess;
      // That the drafter comes to look for the next guess, and that this becomes a token.
      double asked = 1, expected = right;
      lengths[i] = 0;
      while (lengths[i] < most_of(i) && expected > rate * asked * step) {
        tokens += expected;
        seconds += asked * step;
        asked *= given;
        expected *= right;
        ++lengths[i];
      }
      if (lengths[i] > 0) without *= 1 - given;
    }
    seconds += (1 - without) * (cost.pass - cost.plain);
    grows = tokens / seconds > rate * (1 + 1e-9);
    if (grows) rate = tokens / seconds;
    with_guesses = 1 - without;
  }
  const double plain_rate = sequences / cost.plain;
  if (rate < (1 + kMargin * with_guesses) * plain_rate) {
    std::ranges::fill(lengths, 0);
    rate = plain_rate;
  }
  for (size_t i = 0; i < records.size(); ++i) {
    if (lengths[i] == 0 && records[i]->must_probe()) lengths[i] = std::min<int64_t>(1, most_of(i));
  }
  return {.lengths = std::move(lengths),
          .min_probability = std::min(rate * cost.mean_guess, kMostMinProbability)};
}

}  // namespace mambify
