// Times Mamba-2's recurrence as training runs it, in bf16, at the shapes of layers converted from
// Llama-8B's attention and from SmolLM2-135M's, and of a published Mamba-2's. Prints the rate of
// the products that the chunked algorithm needs and of the bytes of inputs and outputs, each once.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/ssd/cuda.h"

namespace mambify::kernels {
namespace {

struct Shape {
  const char* name;
  int64_t batch, length, heads, width, d_state, x_groups, b_groups, c_groups;
};
constexpr Shape kShapes[] = {
    {"8B layer", 4, 2048, 32, 128, 128, 8, 8, 32},
    {"135M layer", 16, 2048, 9, 64, 64, 3, 3, 9},
    {"Mamba-2 370M", 4, 2048, 32, 64, 128, 32, 1, 1},
};
constexpr int kRuns = 20;

// Numbers that are neither zeros nor all alike, in [middle - 1, middle + 1).
template <typename T>
__global__ void fill(T* values, int64_t count, float middle) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const uint32_t hash = static_cast<uint32_t>(i) * 2654435761u;
    values[i] = rounded<T>(static_cast<float>(hash >> 8) * (2.0f / (1 << 24)) - 1.0f + middle);
  }
}

template <typename T>
DeviceMemory random_memory(int64_t count, float middle = 0) {
  DeviceMemory memory(count * static_cast<int64_t>(sizeof(T)));
  fill<<<1024, 256>>>(memory.as<T>(), count, middle);
  check_cuda(cudaDeviceSynchronize());
  return memory;
}

// The median of some runs, in milliseconds. Inputs and outputs are larger than the L2 cache.
template <typename Run>
double time_of(const Run& run, CudaStream stream) {
  cudaEvent_t begin, end;
  check_cuda(cudaEventCreate(&begin));
  check_cuda(cudaEventCreate(&end));
  run();
  std::vector<float> times(kRuns);
  for (float& milliseconds : times) {
    check_cuda(cudaEventRecord(begin, static_cast<cudaStream_t>(stream)));
    run();
    check_cuda(cudaEventRecord(end, static_cast<cudaStream_t>(stream)));
    check_cuda(cudaEventSynchronize(end));
    check_cuda(cudaEventElapsedTime(&milliseconds, begin, end));
  }
  check_cuda(cudaEventDestroy(begin));
  check_cuda(cudaEventDestroy(end));
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  return times[kRuns / 2];
}

void measure(const Shape& s, CudaStream stream) {
  const int64_t tokens = s.batch * s.length, x_width = s.x_groups * s.width,
                b_width = s.b_groups * s.d_state, c_width = s.c_groups * s.d_state,
                y_width = s.heads * s.width;
  std::vector<int32_t> starts;
  for (int64_t i = 0; i <= s.batch; ++i) starts.push_back(static_cast<int32_t>(i * s.length));
  DeviceMemory on_device(static_cast<int64_t>(starts.size()) * 4);
  on_device.write(starts.data(), on_device.bytes());
  const DeviceMemory x = random_memory<Bf16>(tokens * x_width),
                     B = random_memory<Bf16>(tokens * b_width),
                     C = random_memory<Bf16>(tokens * c_width),
                     dt = random_memory<Bf16>(tokens * s.heads, -4),
                     dy = random_memory<Bf16>(tokens * y_width),
                     A = random_memory<float>(s.heads, -2), D = random_memory<float>(s.heads),
                     dt_bias = random_memory<float>(s.heads);
  const DeviceMemory y(tokens * y_width * 2), dx(tokens * x_width * 2), dB(tokens * b_width * 2),
      dC(tokens * c_width * 2), ddt(tokens * s.heads * 2), vectors(3 * s.heads * 4);

  SsdCudaBackwardParams<Bf16> b;
  SsdCudaParams<Bf16>& p = b.forward;
  p.documents = s.batch;
  p.tokens = tokens;
  p.starts = on_device.as<int32_t>();
  p.heads = s.heads;
  p.head_dim = s.width;
  p.d_state = s.d_state;
  p.x_groups = s.x_groups;
  p.b_groups = s.b_groups;
  p.c_groups = s.c_groups;
  p.x = x.as<Bf16>();
  p.x_stride = x_width;
  p.dt = dt.as<Bf16>();
  p.dt_stride = s.heads;
  p.dt_bias = dt_bias.as<float>();
  p.A = A.as<float>();
  p.B = B.as<Bf16>();
  p.b_stride = b_width;
  p.C = C.as<Bf16>();
  p.c_stride = c_width;
  p.D = D.as<float>();
  p.y = y.as<Bf16>();
  b.dy = dy.as<Bf16>();
  b.dx = dx.as<Bf16>();
  b.ddt = ddt.as<Bf16>();
  b.dA = vectors.as<float>();
  b.dD = b.dA + s.heads;
  b.ddt_bias = b.dD + s.heads;
  b.dB = dB.as<Bf16>();
  b.dC = dC.as<Bf16>();
  const DeviceMemory scratch(std::max(ssd_scratch_bytes(p), ssd_backward_scratch_bytes(p)));
  p.scratch = scratch.as<void>();

  const double forward = time_of([&] { ssd_forward_cuda(p, stream); }, stream);
  const double backward = time_of([&] { ssd_backward_cuda(b, stream); }, stream);
  // Of a token and head, in chunks of 64: scores and their products with x, half of them needed;
  // the state's change and its product with C. Backwards five products of scores and five of
  // states.
  constexpr double kChunk = 64;
  const double area = static_cast<double>(s.width) * s.d_state, each = tokens * s.heads;
  const double forward_flops = each * (kChunk * (s.width + s.d_state) + 4 * area);
  const double backward_flops = each * (kChunk * (2 * s.width + 3 * s.d_state) + 10 * area);
  const double inputs = 2.0 * tokens * (x_width + b_width + c_width + s.heads),
               outputs = 2.0 * tokens * y_width;
  const auto print = [&](const char* pass, double milliseconds, double flops, double bytes) {
    std::printf("%-14s %-9s %8.3f %9.0f %8.0f\n", s.name, pass, milliseconds,
                flops / milliseconds * 1e-9, bytes / milliseconds * 1e-6);
  };
  print("forward", forward, forward_flops, inputs + outputs);
  print("backward", backward, backward_flops, 2 * inputs + outputs);
}

}  // namespace
}  // namespace mambify::kernels

int main() {
  using namespace mambify::kernels;
  use_cuda_device(0);
  const CudaStream stream = create_cuda_stream();
  std::printf("%s, Mamba-2's recurrence, bf16\n", cuda_device_name().c_str());
  std::printf("%-14s %-9s %8s %9s %8s\n", "layer", "pass", "ms", "TFLOP/s", "GB/s");
  for (const Shape& shape : kShapes) measure(shape, stream);
  destroy_cuda_stream(stream);
}
