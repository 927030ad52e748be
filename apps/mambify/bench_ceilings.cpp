// What the machine can do: the rate at which memory is read and at which matrices are multiplied.
#include <ATen/Parallel.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <limits>

#include "bench_verbs.h"

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

// Many independent sums, so that additions wait for memory and not for one another.
int64_t sum(const int64_t* data, int64_t begin, int64_t end) {
  std::array<int64_t, 32> sums{};
  for (int64_t i = begin; i + 32 <= end; i += 32) {
    for (int64_t lane = 0; lane < 32; ++lane) sums[lane] += data[i + lane];
  }
  int64_t total = 0;
  for (int64_t one : sums) total += one;
  return total;
}

}  // namespace

double measured_read_gigabytes_per_second() {
  constexpr int64_t kBytes = int64_t{512} << 20, kWords = kBytes / 8;
  const at::Tensor words = at::ones({kWords}, at::kLong);
  std::atomic<int64_t> total = 0;  // seen outside, so that no sum can be left out
  const double seconds = fastest([&] {
    at::parallel_for(0, kWords, kWords / at::get_num_threads(), [&](int64_t begin, int64_t end) {
      total += sum(words.const_data_ptr<int64_t>(), begin, end);
    });
  });
  return total > 0 ? kBytes / seconds / 1e9 : 0;
}

double measured_gemm_gigaflops(at::ScalarType dtype) {
  const c10::InferenceMode inference;
  constexpr int64_t kSize = 2048;
  const at::Tensor a = at::randn({kSize, kSize}).to(dtype), b = at::randn({kSize, kSize}).to(dtype);
  const double seconds = fastest([&] { at::mm(a, b); });
  return 2.0 * kSize * kSize * kSize / seconds / 1e9;
}

}  // namespace mambify
