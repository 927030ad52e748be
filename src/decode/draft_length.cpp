#include "decode/draft_length.h"

#include <algorithm>

namespace mambify {
namespace {

// What a pass adds to is worth this much when the next one comes.
constexpr double kRecordMemory = 0.95, kCostMemory = 0.97;
// Tries that a new record begins with, and how many of them were right.
constexpr double kPriorTried = 1, kPriorRight = 0.5;
// A guess is believed to cost this much of a pass, as if that had been measured so many times.
constexpr double kPriorGuess = 0.1, kPriorPasses = 4;

}  // namespace

void DraftRecord::add(int64_t guessed, int64_t right) {
  if (guessed == 0) {
    ++passes_without_;
    return;
  }
  const bool was_probe = must_probe();
  passes_without_ = 0;
  if (right > 0) {
    patience_ = kLeastPatience;
  } else if (was_probe) {
    patience_ = std::min(2 * patience_, kMostPatience);
  }
  // Guesses behind the first wrong one say nothing.
  tried_ = tried_ * kRecordMemory + static_cast<double>(std::min(right + 1, guessed));
  right_ = right_ * kRecordMemory + static_cast<double>(right);
}

double DraftRecord::acceptance() const { return (right_ + kPriorRight) / (tried_ + kPriorTried); }

void DraftLengths::add_pass(int64_t guesses, double seconds) {
  // A pass that something else on the machine held up says little about the next.
  const Cost expected = cost();
  const auto count = static_cast<double>(guesses);
  if (weight_ > 2) seconds = std::min(seconds, 2 * (expected.pass + count * expected.guess));
  for (double* sum : {&weight_, &guesses_, &squares_, &seconds_, &products_}) *sum *= kCostMemory;
  weight_ += 1;
  guesses_ += count;
  squares_ += count * count;
  seconds_ += seconds;
  products_ += seconds * count;
}

DraftLengths::Cost DraftLengths::cost() const {
  if (weight_ == 0) return {1, kPriorGuess};
  // Least squares of seconds = pass + guesses * guess, drawn towards what is believed.
  const double mean_guesses = guesses_ / weight_, mean_seconds = seconds_ / weight_;
  const double believed = mean_seconds / (1 / kPriorGuess + mean_guesses);
  const double variance = squares_ - guesses_ * mean_guesses;
  const double covariance = products_ - seconds_ * mean_guesses;
  const double guess = (covariance + kPriorPasses * believed) / (variance + kPriorPasses);
  // Timing noise must not make guesses free or passes cost nothing.
  const double least = 0.01 * mean_seconds / (1 + mean_guesses);
  const double most = mean_seconds / (1 + mean_guesses);
  const double bounded = std::clamp(guess, least, most);
  return {mean_seconds - bounded * mean_guesses, bounded};
}

std::vector<int64_t> DraftLengths::choose(std::span<const DraftRecord* const> records,
                                          int64_t most) const {
  std::vector<int64_t> lengths(records.size(), 0);
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
  for (size_t i = 0; i < records.size(); ++i) {
    if (lengths[i] == 0 && records[i]->must_probe()) lengths[i] = std::min<int64_t>(1, most);
  }
  return lengths;
}

}  // namespace mambify
