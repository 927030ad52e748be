#include "decode/draft_length.h"

#include <algorithm>
#include <cmath>

namespace mambify {
namespace {

// What a pass adds to is worth this much when the next one of its kind comes.
constexpr double kRecordMemory = 0.95, kAllRecordsMemory = 0.99, kCostMemory = 0.97;
// Sequences differ: a new one is expected to be between the others and this.
constexpr double kUnknownAcceptance = 0.5;
// A guess is believed to cost this much of a pass until one was timed; after that, to be all that
// passes with and without guesses differ by, as if that had been measured so many times.
constexpr double kPriorGuess = 0.1, kPriorPasses = 4;
// Guesses must promise so much more than none: what they gain is less certain than what they cost.
constexpr double kMargin = 1.02;
// What guesses that only show how things stand may cost, of all time.
constexpr double kProbeShare = 0.01;
constexpr int64_t kLeastPatience = 8, kMostLeastPatience = 64, kMostPatience = 256;
// Passes with guesses after which one without is timed; at first, fewer.
constexpr int64_t kPassesBetweenPlain = 64;

}  // namespace

void DraftRecord::add(int64_t guessed, int64_t right, int64_t least_patience) {
  if (guessed == 0) {
    ++passes_without_;
    return;
  }
  const bool was_probe = must_probe();
  passes_without_ = 0;
  if (right > 0) {
    patience_ = least_patience;
  } else if (was_probe) {
    patience_ = std::min(std::max(2 * patience_, least_patience), kMostPatience);
  }
  // Guesses behind the first wrong one say nothing.
  tried_ = tried_ * kRecordMemory + static_cast<double>(std::min(right + 1, guessed));
  right_ = right_ * kRecordMemory + static_cast<double>(right);
}

DraftRecord DraftLengths::begin() const {
  // One wrong guess is enough to tell; without it, none would.
  return DraftRecord((right_ / tried_ + kUnknownAcceptance) / 2, /*tried=*/1, least_patience());
}

void DraftLengths::add_pass(int64_t guesses, double seconds) {
  // A pass that something else on the machine held up says little about the next.
  const Cost expected = cost();
  if (guesses == 0) {
    if (plain_weight_ > 2) seconds = std::min(seconds, 2 * expected.plain);
    plain_weight_ = plain_weight_ * kCostMemory + 1;
    plain_seconds_ = plain_seconds_ * kCostMemory + seconds;
    ++plain_passes_;
    passes_since_plain_ = 0;
    return;
  }
  ++passes_since_plain_;
  const auto count = static_cast<double>(guesses);
  if (weight_ > 2) seconds = std::min(seconds, 2 * (expected.pass + count * expected.guess));
  for (double* sum : {&weight_, &guesses_, &squares_, &seconds_, &products_}) *sum *= kCostMemory;
  weight_ += 1;
  guesses_ += count;
  squares_ += count * count;
  seconds_ += seconds;
  products_ += seconds * count;
}

void DraftLengths::add_guesses(DraftRecord& record, int64_t guessed, int64_t right) {
  record.add(guessed, right, least_patience());
  if (guessed == 0) return;
  tried_ = tried_ * kAllRecordsMemory + static_cast<double>(std::min(right + 1, guessed));
  right_ = right_ * kAllRecordsMemory + static_cast<double>(right);
}

DraftLengths::Cost DraftLengths::cost() const {
  if (plain_weight_ == 0 && weight_ == 0) return {1, 1, kPriorGuess};
  if (weight_ == 0) {
    const double plain = plain_seconds_ / plain_weight_;
    return {plain, plain, kPriorGuess * plain};
  }
  const double mean_guesses = guesses_ / weight_, mean_seconds = seconds_ / weight_;
  const double plain = plain_weight_ > 0 ? plain_seconds_ / plain_weight_
                                         : mean_seconds / (1 + kPriorGuess * mean_guesses);
  // Least squares of seconds = pass + guesses * guess, drawn towards pass = plain.
  const double believed = (mean_seconds - plain) / mean_guesses;
  const double variance = squares_ - guesses_ * mean_guesses;
  const double covariance = products_ - seconds_ * mean_guesses;
  const double guess = (covariance + kPriorPasses * believed) / (variance + kPriorPasses);
  // Timing noise must not make guesses free, nor passes with them faster than without.
  const double least = 0.01 * mean_seconds / (1 + mean_guesses);
  const double bounded = std::clamp(guess, least, std::max(least, believed));
  return {plain, mean_seconds - bounded * mean_guesses, bounded};
}

int64_t DraftLengths::least_patience() const {
  const Cost cost = this->cost();
  const double share = (cost.pass + cost.guess - cost.plain) / cost.plain;
  return std::clamp(static_cast<int64_t>(std::ceil(share / kProbeShare)), kLeastPatience,
                    kMostLeastPatience);
}

bool DraftLengths::must_time_a_plain_pass() const {
  const int64_t between = plain_passes_ < 6 ? int64_t{1} << plain_passes_ : kPassesBetweenPlain;
  return plain_passes_ == 0 || passes_since_plain_ >= between;
}

std::vector<int64_t> DraftLengths::choose(std::span<const DraftRecord* const> records,
                                          int64_t most) const {
  std::vector<int64_t> lengths(records.size(), 0);
  if (must_time_a_plain_pass()) return lengths;
  const Cost cost = this->cost();
  // A guess pays when the tokens expected of it, per second, exceed those of the passes as a whole;
  // these are what the choice makes them, so that it is repeated until they no longer grow
  // (Dinkelbach's method for the maximum of a ratio).
  double rate = 0;
  for (bool grows = true; grows;) {
    double tokens = 0, seconds = cost.pass;
    for (size_t i = 0; i < records.size(); ++i) {
      const double acceptance = records[i]->acceptance();
      double expected = acceptance;
      tokens += 1;
      lengths[i] = 0;
      while (lengths[i] < most && expected > rate * cost.guess) {
        tokens += expected;
        seconds += cost.guess;
        expected *= acceptance;
        ++lengths[i];
      }
    }
    grows = tokens / seconds > rate * (1 + 1e-9);
    if (grows) rate = tokens / seconds;
  }
  if (rate < kMargin * static_cast<double>(records.size()) / cost.plain) {
    std::ranges::fill(lengths, 0);
  }
  for (size_t i = 0; i < records.size(); ++i) {
    if (lengths[i] == 0 && records[i]->must_probe()) lengths[i] = std::min<int64_t>(1, most);
  }
  return lengths;
}

}  // namespace mambify
