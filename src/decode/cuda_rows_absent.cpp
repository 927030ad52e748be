// Stands in for cuda_rows.cpp in a build without CUDA.
#include "core/error.h"
#include "decode/cuda_rows.h"

namespace mambify {

std::unique_ptr<ModelRows> make_cuda_rows(const CudaWeights&, int64_t, int64_t, int64_t,
                                          std::vector<TokenId>) {
  throw Error("this build of mambify computes on the CPU only");
}

}  // namespace mambify
