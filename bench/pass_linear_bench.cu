// The linear maps of decoding, alone: how much of the memory's rate each shape reaches. Weights
// rotate over several copies, so that they come from memory and not from the L2 cache.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/read_rate.h"
#include "kernels/pass_linear/params.h"

using namespace mambify::kernels;

namespace {

struct Shape {
  const char* name;
  int64_t inputs, outputs;
  bool norm, gated;
};
constexpr Shape kShapes[] = {{"mamba-2.8b in_proj", 2560, 10240, true, false},
                             {"mamba-2.8b x_proj", 5120, 192, false, false},
                             {"mamba-2.8b dt_proj", 160, 5120, false, false},
                             {"mamba-2.8b out_proj", 5120, 2560, false, false},
                             {"mamba-2.8b lm_head", 2560, 50280, false, false},
                             {"mamba-130m in_proj", 768, 3072, true, false},
                             {"mamba-130m out_proj", 1536, 768, false, false},
                             {"llama-8b qkv", 4096, 6144, true, false},
                             {"llama-8b o", 4096, 4096, false, false},
                             {"llama-8b gate and up", 4096, 14336, true, true},
                             {"llama-8b down", 14336, 4096, false, false},
                             {"llama-8b lm_head", 4096, 128256, false, false},
                             {"smollm2 qkv", 576, 960, true, false},
                             {"smollm2 down", 1536, 576, false, false}};
constexpr int64_t kRows[] = {1, 2, 5, 8, 16, 64};
constexpr int kLaunches = 32;

// Microseconds of a launch, the median of several graphs of kLaunches.
double measure(const Shape& shape, int64_t rows) {
  const int64_t width = padded(shape.inputs);
  const int64_t bytes = width * shape.outputs * (shape.gated ? 2 : 1) * 2;
  const int64_t copies = std::min<int64_t>(kLaunches, std::max<int64_t>(1, (400 << 20) / bytes));
  const DeviceMemory weights(bytes * copies), x(rows * width * 2), norm(width * 2),
      y(rows * shape.outputs * 2);
  std::vector<uint16_t> random(1 << 20);
  uint32_t state = 1;
  for (uint16_t& value : random) {
    state = state * 1664525 + 1013904223;
    value = static_cast<uint16_t>(0x3c00 | (state >> 16 & 0x80ff));
  }
  for (int64_t at = 0; at < weights.bytes(); at += static_cast<int64_t>(random.size()) * 2) {
    const int64_t part =
        std::min<int64_t>(static_cast<int64_t>(random.size()) * 2, weights.bytes() - at);
    check_cuda(cudaMemcpy(weights.as<char>() + at, random.data(), part, cudaMemcpyHostToDevice));
  }
  const CudaStream stream = create_cuda_stream();
  CudaGraph graph;
  graph.begin(stream);
  for (int64_t i = 0; i < kLaunches; ++i) {
    pass_linear_cuda<Bf16>(
        {.rows = rows,
         .inputs = shape.inputs,
         .outputs = shape.outputs,
         .weight = reinterpret_cast<const Bf16*>(weights.as<char>() + i % copies * bytes),
         .gated = shape.gated,
         .norm = shape.norm && pass_linear_takes_norm<Bf16>(rows, shape.inputs) ? norm.as<Bf16>()
                                                                                : nullptr,
         .norm_eps = 1e-5f,
         .x = x.as<Bf16>(),
         .x_stride = width,
         .y = y.as<Bf16>(),
         .y_stride = shape.outputs},
        stream);
  }
  graph.end(stream);
  std::vector<double> times;
  cudaEvent_t begin, end;
  check_cuda(cudaEventCreate(&begin));
  check_cuda(cudaEventCreate(&end));
  for (int run = 0; run < 7; ++run) {
    check_cuda(cudaEventRecord(begin, static_cast<cudaStream_t>(stream)));
    graph.launch(stream);
    check_cuda(cudaEventRecord(end, static_cast<cudaStream_t>(stream)));
    check_cuda(cudaEventSynchronize(end));
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin, end));
    times.push_back(milliseconds * 1000 / kLaunches);
  }
  destroy_cuda_stream(stream);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

}  // namespace

int main() {
  use_cuda_device(0);
  std::printf("%s, bf16; reads %.0f GB/s\n", cuda_device_name().c_str(),
              cuda_read_gigabytes_per_second());
  std::printf("%-22s", "us (GB/s of weights)");
  for (const int64_t rows : kRows) std::printf("%9lld rows  ", static_cast<long long>(rows));
  for (const Shape& shape : kShapes) {
    std::printf("\n%-22s", shape.name);
    const double bytes =
        static_cast<double>(padded(shape.inputs) * shape.outputs) * (shape.gated ? 2 : 1) * 2;
    for (const int64_t rows : kRows) {
      const double microseconds = measure(shape, rows);
      std::printf("%7.1f (%4.0f) ", microseconds, bytes / microseconds / 1e3);
    }
  }
  std::printf("\n");
  return 0;
}
