// Where a model's answers to rotated multiple choice lie, whatever is right.
#pragma once

#include <cstdint>
#include <vector>

namespace mambify {

// Answers by the position of an option, over all times that questions were asked.
struct PositionCounts {
  std::vector<int64_t> gold;    // the right option stood here
  std::vector<int64_t> chosen;  // the model chose what stood here
  std::vector<int64_t> right;   // both

  // position: -1 for an answer that names no option.
  void add(int64_t gold_position, int64_t chosen_position);
  // The standard deviation over positions of the share of right answers when the right option
  // stands there, "RStd" of Zheng et al. 2024 (arXiv 2309.03882): 0 without bias.
  double recall_deviation() const;
};

}  // namespace mambify
