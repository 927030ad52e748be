// What a pass of decoding on a CUDA device reads. It lies in device memory, so that one graph of
// kernels serves every pass of its size.
#pragma once

#include <cstdint>

namespace mambify::kernels {

// One token that a pass reads. Tokens of a sequence follow one another.
struct PassToken {
  int32_t id = 0;
  int32_t position = 0;  // in its sequence
  int32_t place = 0;     // in rings: state row * ring slots + position % ring slots
  int32_t scored = -1;   // its number among the tokens whose next token is scored; -1: none
};

// One sequence: its recurrent states hold its first `base` tokens; the inputs of the `pending` ones
// behind these are in the rings. The pass reads `tokens` new ones, at base + pending and on, and
// leaves the states after base + commit.
struct PassSequence {
  int32_t row = 0;     // of the state
  int32_t first = 0;   // number of its first new token in the pass
  int32_t tokens = 0;  // 0, with no pending either: a place that the pass leaves empty
  int32_t base = 0;
  int32_t pending = 0;
  int32_t commit = 0;  // of the pending and the new ones
};

// Bytes that a kernel brings on their way to the L2 cache beside its own work: the weights of the
// product that follows.
struct Prefetch {
  const void* data = nullptr;
  int64_t bytes = 0;
};

}  // namespace mambify::kernels
