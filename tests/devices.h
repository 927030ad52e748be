// The devices of this machine that a test can run on.
#pragma once

#include <string>
#include <vector>

#include "kernels/cuda/runtime.h"

namespace mambify::testing {

// "cpu", and "cuda" where there is a CUDA device.
inline std::vector<std::string> devices() {
  if (kernels::cuda_device_count() == 0) return {"cpu"};
  return {"cpu", "cuda"};
}

}  // namespace mambify::testing
