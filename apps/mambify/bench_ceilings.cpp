// What the machine can do: the rate at which memory is read and at which matrices are multiplied.
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sum.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>

#include "bench_verbs.h"
#include "ops/panel_memory.h"

namespace mambify {
namespace {

constexpr int kRepeats = 7;

// Seconds of the fastest of several calls: a ceiling is what nothing disturbed.
double fastest(const std::function<void()>& work) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kRepeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::min(best, seconds.count());
  }
  return best;
}

}  // namespace

double measured_read_gigabytes_per_second() {
  const c10::InferenceMode inference;
  PanelMemory memory;
  const at::Tensor words = memory.allocate({int64_t{64} << 20}, at::kLong).fill_(1);
  int64_t total = 0;  // seen outside, so that no sum can be left out
  const double seconds = fastest([&] { total += words.sum().item<int64_t>(); });
  return total > 0 ? static_cast<double>(words.nbytes()) / seconds / 1e9 : 0;
}

double measured_gemm_gigaflops(at::ScalarType dtype, at::Device device) {
  const c10::InferenceMode inference;
  const int64_t size = device.is_cpu() ? 2048 : 8192;
  const auto options = at::TensorOptions(dtype).device(device);
  const at::Tensor a = at::randn({size, size}, options), b = at::randn({size, size}, options);
  at::Tensor c = at::empty({size, size}, options);
  // Reading a number waits for the device.
  const double seconds = fastest([&] { at::mm_out(c, a, b)[0][0].item(); });
  const auto n = static_cast<double>(size);
  return 2.0 * n * n * n / seconds / 1e9;
}

}  // namespace mambify
