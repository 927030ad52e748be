// Time of the multi-step kernels on a CUDA device, beside the published times of the paper's
// kernels and of Mamba-2's single step (arXiv 2408.15237).
//
// Launches of a graph take turns on copies of state and A that together are larger than the L2
// cache, as the layers of a model do; the rings' inputs are in the cache, as a projection leaves
// them. `overlapped` is the time per launch of launches in a row, each beginning while the one
// before it ends, as in decoding; `apart` is that of launches that wait for one another, without
// the time of the empty kernel that parts them. GB/s are of state read and written and of A,
// overlapped.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <vector>

#include "kernels/cuda/launch.cuh"
#include "kernels/multi_step/params.h"

namespace mambify::kernels {
namespace {

constexpr int64_t kSlots = 1040;  // of a long piece
constexpr int kLaunches = 50;
constexpr int64_t kCachedBytes = 256 << 20;  // more than any L2 holds

__global__ void part() {}

template <typename T>
__global__ void fill(T* data, int64_t count, float scale, float mean) {
  for (int64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    const auto hash = static_cast<uint32_t>(i * 2654435761u);
    data[i] = rounded<T>(mean + scale * (static_cast<float>(hash >> 8) / (1 << 23) - 1));
  }
}

template <typename T>
class Array {
 public:
  explicit Array(int64_t count, float scale = 1, float mean = 0)
      : memory_(count * static_cast<int64_t>(sizeof(T))) {
    fill<<<1024, 256>>>(memory_.as<T>(), count, scale, mean);
  }
  T* data() const { return memory_.as<T>(); }

 private:
  DeviceMemory memory_;
};

// Median over graphs of the microseconds of one launch.
template <typename Launch>
double microseconds(CudaStream stream, const Launch& launch_number) {
  CudaGraph graph;
  graph.begin(stream);
  for (int i = 0; i < kLaunches; ++i) launch_number(i);
  graph.end(stream);
  cudaEvent_t begin, end;
  check_cuda(cudaEventCreate(&begin));
  check_cuda(cudaEventCreate(&end));
  std::vector<double> times;
  for (int repeat = 0; repeat < 25; ++repeat) {
    check_cuda(cudaEventRecord(begin, static_cast<cudaStream_t>(stream)));
    graph.launch(stream);
    check_cuda(cudaEventRecord(end, static_cast<cudaStream_t>(stream)));
    synchronise(stream);
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin, end));
    if (repeat >= 5) times.push_back(1000.0 * milliseconds / kLaunches);
  }
  check_cuda(cudaEventDestroy(begin));
  check_cuda(cudaEventDestroy(end));
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

// run(copy) launches the kernel on a copy of what is too large for the cache.
template <typename Run>
void report(CudaStream stream, const char* shape, int64_t batch, int pending, int tokens,
            double bytes, double published, const Run& run) {
  const auto parted = [&](bool with_kernel) {
    return microseconds(stream, [&](int i) {
      part<<<1, 32, 0, static_cast<cudaStream_t>(stream)>>>();
      if (with_kernel) run(i);
    });
  };
  const double overlapped = microseconds(stream, run), apart = parted(true) - parted(false);
  std::printf("%-34s %5lld %7d %6d %10.2f %7.2f %9.1f %7.0f\n", shape,
              static_cast<long long>(batch), pending, tokens, overlapped, apart, published,
              bytes / overlapped * 1e-3);
}

int64_t copies_of(int64_t bytes) {
  return std::max<int64_t>(3, (kCachedBytes + bytes - 1) / bytes);
}

DeviceMemory make_sequences(int64_t batch, int pending, int tokens, int commit) {
  std::vector<PassSequence> sequences;
  for (int i = 0; i < batch; ++i) {
    sequences.push_back({i, i * tokens, tokens, /*base=*/100, pending, commit});
  }
  const auto bytes = static_cast<int64_t>(sequences.size() * sizeof(PassSequence));
  DeviceMemory memory(bytes);
  memory.write(sequences.data(), bytes);
  return memory;
}

struct Mamba1Shape {
  const char* name;
  int64_t d_inner, d_xb, d_state, b_groups, c_groups;
};

void bench_mamba1(CudaStream stream, const Mamba1Shape& shape, int64_t batch, int tokens,
                  double published) {
  constexpr int kPending = 2;
  const int64_t d_inner = shape.d_inner, N = shape.d_state, states = d_inner * N;
  const int64_t places = batch * kSlots, copies = copies_of((batch * 2 + 1) * states * 4);
  const Array<Bf16> x(places * shape.d_xb), z(places * d_inner), dt(places * d_inner);
  const Array<Bf16> B(places * shape.b_groups * N), C(places * shape.c_groups * N);
  const Array<Bf16> weight(d_inner * 4), bias(d_inner), y(batch * tokens * d_inner);
  const Array<float> dt_bias(d_inner, 1, -3), A(copies * states, 0.9f, -1), D(d_inner);
  const Array<float> state(copies * batch * states);
  const DeviceMemory sequences = make_sequences(batch, kPending, tokens, kPending);
  Mamba1StepParams<Bf16> p;
  p.sequences = sequences.as<PassSequence>();
  p.n_sequences = batch;
  p.ring_slots = kSlots;
  p.d_inner = d_inner, p.d_xb = shape.d_xb, p.d_state = N;
  p.b_groups = shape.b_groups, p.c_groups = shape.c_groups;
  p.x = x.data(), p.x_stride = shape.d_xb;
  p.z = z.data(), p.z_stride = d_inner;
  p.dt = dt.data(), p.dt_stride = d_inner;
  p.B = B.data(), p.b_stride = shape.b_groups * N;
  p.C = C.data(), p.c_stride = shape.c_groups * N;
  p.conv_weight = weight.data(), p.conv_bias = bias.data();
  p.dt_bias = dt_bias.data(), p.D = D.data();
  p.y = y.data();
  const double bytes = 4.0 * static_cast<double>(states) * static_cast<double>(2 * batch + 1);
  report(stream, shape.name, batch, kPending, tokens, bytes, published, [&](int64_t i) {
    p.A = A.data() + i % copies * states;
    p.state = state.data() + i % copies * batch * states;
    mamba1_step_cuda(p, {}, stream);
  });
}

struct Mamba2Shape {
  const char* name;
  int64_t heads, head_dim, d_state, x_groups, b_groups, c_groups;
};

void bench_mamba2(CudaStream stream, const Mamba2Shape& shape, int64_t batch, int pending,
                  int tokens, double published) {
  const int64_t states = shape.heads * shape.head_dim * shape.d_state;
  const int64_t channels =
      shape.x_groups * shape.head_dim + (shape.b_groups + shape.c_groups) * shape.d_state;
  const int64_t width = channels + shape.heads, copies = copies_of(batch * 2 * states * 4);
  const Array<Bf16> inputs(batch * kSlots * width), weight(channels * 4), bias(channels);
  const Array<Bf16> y(batch * tokens * shape.heads * shape.head_dim);
  const Array<float> dt_bias(shape.heads, 1, -3), A(shape.heads, 0.9f, -1), D(shape.heads);
  const Array<float> state(copies * batch * states);
  const DeviceMemory sequences =
      make_sequences(batch, pending, tokens, pending > 0 ? pending : tokens);
  Mamba2StepParams<Bf16> p;
  p.sequences = sequences.as<PassSequence>();
  p.n_sequences = batch;
  p.ring_slots = kSlots;
  p.heads = shape.heads, p.head_dim = shape.head_dim, p.d_state = shape.d_state;
  p.x_groups = shape.x_groups, p.b_groups = shape.b_groups, p.c_groups = shape.c_groups;
  p.inputs = inputs.data(), p.input_stride = width;
  p.conv_weight = weight.data(), p.conv_bias = bias.data();
  p.dt_bias = dt_bias.data(), p.A = A.data(), p.D = D.data();
  p.y = y.data();
  const double bytes = 8.0 * static_cast<double>(states * batch);
  report(stream, shape.name, batch, pending, tokens, bytes, published, [&](int64_t i) {
    p.state = state.data() + i % copies * batch * states;
    mamba2_step_cuda(p, {}, stream);
  });
}

void bench() {
  use_cuda_device(0);
  CudaStream stream = create_cuda_stream();
  std::printf("%s, bf16, microseconds per launch\n%-34s %5s %7s %6s %10s %7s %9s %7s\n",
              cuda_device_name().c_str(), "kernel", "batch", "pending", "tokens", "overlapped",
              "apart", "published", "GB/s");
  struct Published {
    int tokens;
    double small, large;
  };
  const Mamba1Shape small{"mamba1 d_inner 5120, d_state 16", 5120, 5120, 16, 1, 1};
  const Mamba1Shape large{"mamba1 d_inner 4096, d_state 128", 4096, 1024, 128, 8, 32};
  const Published rows[] = {{2, 3.6, 8.2},  {3, 4.3, 10.1}, {4, 5.2, 10.4},
                            {5, 6.3, 13.0}, {6, 7.1, 14.9}, {9, 9.8, 18.8}};
  for (const Published& row : rows) bench_mamba1(stream, small, 1, row.tokens, row.small);
  for (const Published& row : rows) bench_mamba1(stream, large, 1, row.tokens, row.large);
  const Mamba2Shape mamba2{"mamba2 32 heads of 128, d_state 128", 32, 128, 128, 8, 8, 32};
  bench_mamba2(stream, mamba2, 1, 0, 1, 2.5);
  bench_mamba2(stream, mamba2, 8, 0, 1, 10.4);
  bench_mamba2(stream, mamba2, 64, 0, 1, 78.9);
  // Without a published time: passes of an engine.
  constexpr double kNone = 0;
  bench_mamba2(stream, mamba2, 1, 1, 1, kNone);
  bench_mamba2(stream, mamba2, 1, 2, 5, kNone);
  bench_mamba2(stream, mamba2, 1, 4, 9, kNone);
  bench_mamba2(stream, mamba2, 64, 1, 1, kNone);
  bench_mamba2(stream, mamba2, 64, 2, 5, kNone);
  const Mamba2Shape narrow{"mamba2 9 heads of 64, d_state 64", 9, 64, 64, 3, 3, 9};
  bench_mamba2(stream, narrow, 1, 1, 1, kNone);
  bench_mamba2(stream, narrow, 1, 2, 5, kNone);
  bench_mamba1(stream, small, 64, 2, kNone);
  bench_mamba1(stream, large, 64, 2, kNone);
  // Pieces of prompts.
  bench_mamba1(stream, small, 1, 1024, kNone);
  bench_mamba1(stream, large, 1, 1024, kNone);
  bench_mamba2(stream, mamba2, 1, 0, 1024, kNone);
  destroy_cuda_stream(stream);
}

}  // namespace
}  // namespace mambify::kernels

int main() {
  try {
    mambify::kernels::bench();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
