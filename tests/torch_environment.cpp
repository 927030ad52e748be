// Part of every test program that uses LibTorch: makes its results reproducible.
#include <gtest/gtest.h>

#include "ops/vector_math.h"

namespace {

class TorchEnvironment : public ::testing::Environment {
  void SetUp() override { mambify::resolve_vector_math(); }
};

const auto* const kEnvironment = ::testing::AddGlobalTestEnvironment(new TorchEnvironment);

}  // namespace
