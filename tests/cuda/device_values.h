// What tests of CUDA kernels share: arrays of the device and how far they lie from a definition
// computed in double from the same, narrowed, inputs.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/bf16_values.h"
#include "kernels/cuda/runtime.h"
#include "numerics.h"
#include "tolerances.h"

namespace mambify::testing {

// Values in memory of the device, and back.
template <typename T>
kernels::DeviceMemory on_device(const std::vector<T>& values) {
  kernels::DeviceMemory memory(static_cast<int64_t>(values.size() * sizeof(T)));
  memory.write(values.data(), memory.bytes());
  return memory;
}
template <typename T>
std::vector<T> on_host(const kernels::DeviceMemory& memory) {
  std::vector<T> values(memory.bytes() / sizeof(T));
  memory.read(values.data(), memory.bytes());
  return values;
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// An array of the device's memory.
template <typename T>
class DeviceArray {
 public:
  // Every byte is 0xff, which is NaN in fp32 and in bf16: a kernel must write before it reads.
  static DeviceArray poisoned(int64_t count) {
    DeviceArray array;
    const std::vector<unsigned char> bytes(count * sizeof(T), 0xff);
    array.count_ = count;
    array.memory_ = kernels::DeviceMemory(std::max<int64_t>(bytes.size(), 1));
    array.memory_.write(bytes.data(), bytes.size());
    return array;
  }
  DeviceArray() = default;
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(poisoned(values.size())) {
    memory_.write(values.data(), count_ * sizeof(T));
  }

  T* data() const { return memory_.as<T>(); }
  std::vector<T> download() const {
    std::vector<T> values(count_);
    memory_.read(values.data(), count_ * sizeof(T));
    return values;
  }

 private:
  int64_t count_ = 0;
  kernels::DeviceMemory memory_;
};

// An input: on the device in T, and what T keeps of it in double.
template <typename T>
struct Input {
  Input() = default;
  explicit Input(const std::vector<float>& values)
      : device(kernels::narrowed<T>(values)),
        exact(converted<double>(kernels::widened(kernels::narrowed<T>(values)))) {}
  static Input random(int64_t count, uint64_t seed, double scale = 1, double mean = 0) {
    return Input(random_values<float>(count, seed, scale, mean));
  }

  DeviceArray<T> device;
  std::vector<double> exact;
};

// An output: poisoned memory of the device in T, and of the definition in double.
template <typename T>
struct Output {
  Output() = default;
  explicit Output(int64_t count)
      : device(DeviceArray<T>::poisoned(count)), exact(nan_values<double>(count)) {}

  double error() const { return max_relative_error(kernels::widened(device.download()), exact); }
  std::vector<char> bytes() const {
    const std::vector<T> values = device.download();
    std::vector<char> result(values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(result.data(), values.data(), result.size());
    return result;
  }

  DeviceArray<T> device;
  std::vector<double> exact;
};

// Rows of `width` taken out of rows that are `stride` apart.
template <typename T>
std::vector<T> dense_rows(const std::vector<T>& values, int64_t width, int64_t stride) {
  std::vector<T> result;
  for (size_t begin = 0; begin + width <= values.size(); begin += stride) {
    result.insert(result.end(), values.begin() + begin, values.begin() + begin + width);
  }
  return result;
}

template <typename T>
Tolerance cuda_tolerance() {
  return tolerance("cuda", std::is_same_v<T, kernels::Bf16> ? "bf16" : "fp32");
}
// What parameters' gradients, which are fp32 sums whatever T is, are held to: their summands come
// from the same inputs.
inline Tolerance cuda_sum_tolerance() { return tolerance("cuda", "fp32"); }

inline std::vector<int32_t> narrow_starts(const std::vector<int64_t>& starts) {
  return std::vector<int32_t>(starts.begin(), starts.end());
}

// For TYPED_TEST_SUITE: each test in fp32 and bf16, on a device.
template <typename T>
class CudaKernelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (kernels::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  }
};
using DeviceTypes = ::testing::Types<float, kernels::Bf16>;

}  // namespace mambify::testing
