#include "kernels/cuda/product_rate.h"

#include <algorithm>
#include <chrono>

#include "kernels/cuda/random_fill.h"
#include "kernels/pass_linear/params.h"

namespace mambify::kernels {

double cuda_product_gigaflops() {
  constexpr int64_t kRows = 4096, kInputs = 8192, kOutputs = 8192, kRepeats = 10;
  constexpr auto kBytes = static_cast<int64_t>(sizeof(Bf16));
  const DeviceMemory weight(kOutputs * kInputs * kBytes), x(kRows * kInputs * kBytes),
      y(kRows * kOutputs * kBytes);
  fill_random(weight.as<Bf16>(), kOutputs * kInputs, 0.02f);
  fill_random(x.as<Bf16>(), kRows * kInputs, 1);
  const CudaStream stream = create_cuda_stream();
  double best = 0;
  for (int64_t i = 0; i < kRepeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    pass_linear_cuda<Bf16>({.rows = kRows,
                            .inputs = kInputs,
                            .outputs = kOutputs,
                            .weight = weight.as<Bf16>(),
                            .x = x.as<Bf16>(),
                            .x_stride = kInputs,
                            .y = y.as<Bf16>(),
                            .y_stride = kOutputs},
                           stream);
    synchronise(stream);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, 2.0 * kRows * kInputs * kOutputs / seconds.count() / 1e9);
  }
  destroy_cuda_stream(stream);
  return best;
}

}  // namespace mambify::kernels
