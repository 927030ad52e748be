// The states that the forward pass of a scan keeps, from which its backward pass recomputes the
// others: storing all would cost d_state times the memory of the activations.
#pragma once

#include <cstdint>
#include <vector>

namespace mambify::kernels {

// Steps from one checkpoint to the next; each document's first is its initial state.
inline constexpr int64_t kCheckpointInterval = 32;

inline int64_t checkpoints_for(int64_t tokens) {
  return (tokens + kCheckpointInterval - 1) / kCheckpointInterval;
}

// The first checkpoint of each document and, last, their number; starts: [documents + 1].
inline std::vector<int64_t> checkpoint_offsets(const int64_t* starts, int64_t documents) {
  std::vector<int64_t> offsets(documents + 1);
  for (int64_t i = 0; i < documents; ++i) {
    offsets[i + 1] = offsets[i] + checkpoints_for(starts[i + 1] - starts[i]);
  }
  return offsets;
}

}  // namespace mambify::kernels
