// Means of per-item results with their uncertainty.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace mambify {

struct Estimate {
  double mean = 0;
  double error = 0;  // standard error: sample deviation / sqrt(n); 0 for a single item
};

Estimate estimate(std::span<const double> values);

// The mean over the tokens of several texts: the sum of `totals`, one a text, over that of
// `counts`, its tokens. Tokens of one text are alike, so the standard error is that of a ratio over
// texts drawn at random (Cochran, Sampling Techniques, 2.11); 0 for a single text.
Estimate estimate_ratio(std::span<const double> totals, std::span<const double> counts);

struct Interval {
  double low = 0, high = 0;
};

// A student's results beside its teacher's on the same items.
struct PairedComparison {
  Estimate difference;  // student - teacher, from the per-item differences
  Interval interval;    // of the difference: 95 %, normal approximation
  // (student - chance) / (teacher - chance): the part of what the teacher knows that the student
  // kept. Nothing when the teacher is not above chance.
  std::optional<double> kept;
  // 95 %, percentile bootstrap over items. Nothing when the teacher falls to chance in more than
  // one resample of forty, so that the ratio has no bounds.
  std::optional<Interval> kept_interval;
};

// Both spans hold one value an item, in the same order. The bootstrap's draws depend on nothing but
// the seed.
PairedComparison compare_paired(std::span<const double> student, std::span<const double> teacher,
                                double chance, uint64_t seed = 0);

}  // namespace mambify
