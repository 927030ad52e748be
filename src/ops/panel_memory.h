// Memory for packed weights.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mambify {

// Gives tensors that stand behind one another in large blocks of huge pages. Decoding reads weights
// from first to last, and with small pages the processor's prefetching stops at the end of each:
// two cores were seen to read 14 to 26 GB/s from them and 30 GB/s from huge ones.
class PanelMemory {
 public:
  // Contiguous, not initialised. Throws Error when there is no memory. The tensor may outlive this.
  at::Tensor allocate(at::IntArrayRef sizes, at::ScalarType type);

 private:
  at::Tensor block_;  // bytes
  int64_t used_ = 0;
};

}  // namespace mambify
