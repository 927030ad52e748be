#include "eval/tasks/position_bias.h"

#include <algorithm>
#include <cmath>

namespace mambify {

void PositionCounts::add(int64_t gold_position, int64_t chosen_position) {
  const auto positions = static_cast<size_t>(std::max(gold_position, chosen_position) + 1);
  if (gold.size() < positions) {
    for (std::vector<int64_t>* counts : {&gold, &chosen, &right}) counts->resize(positions);
  }
  ++gold[gold_position];
  if (chosen_position >= 0) ++chosen[chosen_position];
  if (chosen_position == gold_position) ++right[gold_position];
}

double PositionCounts::recall_deviation() const {
  double sum = 0, squares = 0, positions = 0;
  for (size_t i = 0; i < gold.size(); ++i) {
    if (gold[i] == 0) continue;
    const double recall = static_cast<double>(right[i]) / static_cast<double>(gold[i]);
    sum += recall;
    squares += recall * recall;
    positions += 1;
  }
  if (positions == 0) return 0;
  const double mean = sum / positions;
  return std::sqrt(std::max(0.0, squares / positions - mean * mean));
}

}  // namespace mambify
