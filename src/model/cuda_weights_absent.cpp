// Stands in for cuda_weights.cpp in a build without CUDA.
#include "kernels/cuda/runtime.h"
#include "model/cuda_weights.h"

namespace mambify {

std::shared_ptr<const CudaWeights> make_cuda_weights(const Model&, int device) {
  kernels::use_cuda_device(device);  // throws: there is none
  return nullptr;
}

}  // namespace mambify
