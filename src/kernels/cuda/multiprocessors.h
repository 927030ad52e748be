// What the device of the pass has to divide a kernel among.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

inline int64_t device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check_cuda(cudaGetDevice(&device));
  check_cuda(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

inline int64_t multiprocessors() {
  static const int64_t count = device_attribute(cudaDevAttrMultiProcessorCount);
  return count;
}
// Bytes that the blocks on a multiprocessor share.
inline int64_t multiprocessor_shared_bytes() {
  static const int64_t bytes = device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  return bytes;
}

}  // namespace mambify::kernels
