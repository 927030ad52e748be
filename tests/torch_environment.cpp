// Part of every test program that uses LibTorch: makes its results reproducible.
#include <gtest/gtest.h>

#include "ops/cuda.h"
#include "ops/vector_math.h"

namespace {

class TorchEnvironment : public ::testing::Environment {
  void SetUp() override {
    if (mambify::kernels::cuda_device_count() > 0) mambify::load_torch_cuda(0);
    mambify::resolve_vector_math();
  }
};

const auto* const kEnvironment = ::testing::AddGlobalTestEnvironment(new TorchEnvironment);

}  // namespace
