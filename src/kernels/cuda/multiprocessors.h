// How many multiprocessors the device of the pass has.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

inline int64_t multiprocessors() {
  static const int64_t count = [] {
    int device = 0, value = 0;
    check_cuda(cudaGetDevice(&device));
    check_cuda(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device));
    return value;
  }();
  return count;
}

}  // namespace mambify::kernels
