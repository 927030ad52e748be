// The end of a sum that blocks of a kernel have each computed a part of: without atomics, so that
// its order, and with it its bits, are the same in every run.
#pragma once

#include <cstdint>

#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

// total[c] = sum over parts of partial[part * stride + c], c < columns, all on the device.
struct SumPartsParams {
  const float* partial = nullptr;
  int64_t parts = 0;
  int64_t stride = 0;
  int64_t columns = 0;
  float* total = nullptr;
};
void sum_parts_cuda(const SumPartsParams& p, CudaStream stream);

}  // namespace mambify::kernels
