#include "eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/random.h"

namespace mambify {
namespace {

constexpr double kNormal95 = 1.959963984540054;
constexpr int kResamples = 2000;

// The bounds between which 95 % of the values lie.
Interval percentile_95(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto last = static_cast<double>(values.size() - 1);
  return {values[static_cast<size_t>(std::floor(0.025 * last))],
          values[static_cast<size_t>(std::ceil(0.975 * last))]};
}

std::optional<Interval> bootstrap_kept(std::span<const double> student,
                                       std::span<const double> teacher, double chance,
                                       uint64_t seed) {
  const size_t n = student.size();
  std::vector<double> ratios;
  int at_chance = 0;
  for (int resample = 0; resample < kResamples; ++resample) {
    const CounterRandom random(seed, RandomPurpose::sample, static_cast<uint32_t>(resample));
    double of_student = 0, of_teacher = 0;
    for (size_t i = 0; i < n; ++i) {
      const auto item =
          static_cast<size_t>(random.uniform(0, static_cast<uint32_t>(i)) * static_cast<double>(n));
      of_student += student[item] - chance;
      of_teacher += teacher[item] - chance;
    }
    if (of_teacher <= 0) {
      ++at_chance;
      ratios.push_back(std::numeric_limits<double>::infinity());
    } else {
      ratios.push_back(of_student / of_teacher);
    }
  }
  if (at_chance * 40 > kResamples) return std::nullopt;
  const Interval interval = percentile_95(std::move(ratios));
  return std::isfinite(interval.high) ? std::optional(interval) : std::nullopt;
}

}  // namespace

Estimate estimate(std::span<const double> values) {
  Estimate result;
  if (values.empty()) return result;
  const auto n = static_cast<double>(values.size());
  result.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (values.size() < 2) return result;
  double squares = 0;
  for (const double value : values) squares += (value - result.mean) * (value - result.mean);
  result.error = std::sqrt(squares / (n - 1) / n);
  return result;
}

Estimate estimate_ratio(std::span<const double> totals, std::span<const double> counts) {
  Estimate result;
  const double count = std::accumulate(counts.begin(), counts.end(), 0.0);
  if (count == 0) return result;
  result.mean = std::accumulate(totals.begin(), totals.end(), 0.0) / count;
  if (totals.size() < 2) return result;
  const auto n = static_cast<double>(totals.size());
  double squares = 0;
  for (size_t i = 0; i < totals.size(); ++i) {
    const double residual = totals[i] - result.mean * counts[i];
    squares += residual * residual;
  }
  result.error = std::sqrt(n / (n - 1) * squares) / count;
  return result;
}

PairedComparison compare_paired(std::span<const double> student, std::span<const double> teacher,
                                double chance, uint64_t seed) {
  std::vector<double> differences;
  for (size_t i = 0; i < student.size(); ++i) differences.push_back(student[i] - teacher[i]);
  PairedComparison result;
  result.difference = estimate(differences);
  const double half = kNormal95 * result.difference.error;
  result.interval = {result.difference.mean - half, result.difference.mean + half};
  const double above = estimate(teacher).mean - chance;
  if (above <= 0) return result;
  result.kept = (estimate(student).mean - chance) / above;
  result.kept_interval = bootstrap_kept(student, teacher, chance, seed);
  return result;
}

}  // namespace mambify
