// The linear maps of decoding: how much of the memory's rate each shape reaches alone, and those of
// a layer one behind the other. Weights rotate over several copies, so that they come from memory
// and not from the L2 cache.
#include <algorithm>
#include <cstdio>
#include <span>
#include <vector>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/random_fill.h"
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
const std::vector<Shape> kLayers[] = {
    {{"mamba-2.8b in, out", 2560, 10240, true, false}, {"", 5120, 2560, false, false}},
    {{"mamba2-2.7b in, out", 2560, 10576, true, false}, {"", 5120, 2560, false, false}},
    {{"mamba-130m in, out", 768, 3072, true, false}, {"", 1536, 768, false, false}},
    {{"llama-8b layer", 4096, 6144, true, false},
     {"", 4096, 4096, false, false},
     {"", 4096, 14336, true, true},
     {"", 14336, 4096, false, false}}};
constexpr int64_t kRows[] = {1, 2, 5, 8, 16, 64};
constexpr int kLaunches = 32;

int64_t bytes_of(const Shape& shape) {
  return padded(shape.inputs) * shape.outputs * (shape.gated ? 2 : 1) * 2;
}

DeviceMemory random_weights(int64_t bytes) {
  DeviceMemory weights(bytes);
  fill_random(weights.as<Bf16>(), bytes / 2, 1.0f / 64);
  return weights;
}

// Microseconds of the shapes one behind the other, the median of several graphs.
double measure(std::span<const Shape> shapes, int64_t rows) {
  int64_t bytes = 0, inputs = 0, outputs = 0;
  for (const Shape& shape : shapes) {
    bytes += bytes_of(shape);
    inputs = std::max(inputs, padded(shape.inputs));
    outputs = std::max(outputs, shape.outputs);
  }
  const int64_t copies = std::clamp<int64_t>((400 << 20) / bytes, 1, kLaunches);
  const DeviceMemory weights = random_weights(bytes * copies),
                     x = random_weights(rows * inputs * 2), norm = random_weights(inputs * 2),
                     y(rows * outputs * 2);
  const CudaStream stream = create_cuda_stream();
  CudaGraph graph;
  graph.begin(stream);
  for (int64_t i = 0; i < kLaunches; ++i) {
    const char* weight = weights.as<char>() + i % copies * bytes;
    for (const Shape& shape : shapes) {
      const bool takes_norm = shape.norm && pass_linear_takes_norm<Bf16>(rows, shape.inputs);
      pass_linear_cuda<Bf16>({.rows = rows,
                              .inputs = shape.inputs,
                              .outputs = shape.outputs,
                              .weight = reinterpret_cast<const Bf16*>(weight),
                              .gated = shape.gated,
                              .norm = takes_norm ? norm.as<Bf16>() : nullptr,
                              .norm_eps = 1e-5f,
                              .x = x.as<Bf16>(),
                              .x_stride = inputs,
                              .y = y.as<Bf16>(),
                              .y_stride = shape.outputs},
                             stream);
      weight += bytes_of(shape);
    }
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

// A line of the table, called as the first of the shapes.
void print(std::span<const Shape> shapes) {
  std::printf("\n%-22s", shapes.front().name);
  int64_t bytes = 0;
  for (const Shape& shape : shapes) bytes += bytes_of(shape);
  for (const int64_t rows : kRows) {
    const double microseconds = measure(shapes, rows);
    std::printf("%7.1f (%4.0f) ", microseconds, static_cast<double>(bytes) / microseconds / 1e3);
  }
}

}  // namespace

int main() {
  use_cuda_device(0);
  std::printf("%s, bf16; reads %.0f GB/s\n", cuda_device_name().c_str(),
              cuda_read_gigabytes_per_second());
  std::printf("%-22s", "us (GB/s of weights)");
  for (const int64_t rows : kRows) std::printf("%9lld rows  ", static_cast<long long>(rows));
  for (const Shape& shape : kShapes) print({&shape, 1});
  for (const std::vector<Shape>& layer : kLayers) print(layer);
  std::printf("\n");
  return 0;
}
