// Time of the kernels of training that memory limits, in bf16, of 16,384 tokens where nothing else
// is said, beside the rate at which the device reads its memory. Bytes are those that must be read
// and written at least once; every array is larger than what a cache holds.
//
// Usage: training_kernels_bench [NAME]: all kernels, or those whose names begin so.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/causal_conv1d/params.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/read_rate.h"
#include "kernels/logit_loss/params.h"
#include "kernels/rms_norm/params.h"
#include "kernels/rotary/params.h"
#include "kernels/selective_scan/params.h"
#include "kernels/swiglu/params.h"

namespace mambify::kernels {
namespace {

constexpr int64_t kTokens = 16384, kDocuments = 8;

template <typename T>
__global__ void fill(T* data, int64_t count, float scale, float mean) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    const auto hash = static_cast<uint32_t>(i * 2654435761u);
    const float value = mean + scale * (static_cast<float>(hash >> 8) / (1 << 23) - 1);
    data[i] = rounded<T>(value);
  }
}

template <typename T>
class Array {
 public:
  explicit Array(int64_t count, float scale = 1, float mean = 0)
      : memory_(count * static_cast<int64_t>(sizeof(T))) {
    fill<<<1024, 256>>>(memory_.as<T>(), count, scale, mean);
    check_cuda(cudaDeviceSynchronize());
  }
  T* data() const { return memory_.as<T>(); }

 private:
  DeviceMemory memory_;
};

class Bench {
 public:
  Bench() : stream_(create_cuda_stream()), ceiling_(cuda_read_gigabytes_per_second()) {
    check_cuda(cudaEventCreate(&begin_));
    check_cuda(cudaEventCreate(&end_));
    std::printf("%s, bf16, %lld tokens; memory is read at %.0f GB/s\n%-44s %10s %8s %6s\n",
                cuda_device_name().c_str(), static_cast<long long>(kTokens), ceiling_, "kernel",
                "us", "GB/s", "share");
  }
  ~Bench() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    destroy_cuda_stream(stream_);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  CudaStream stream() const { return stream_; }

  // Prints the median time of what `run` launches, and the rate at which it moves `bytes`.
  template <typename Run>
  void report(const char* name, double bytes, const Run& run) {
    constexpr int kWarmUps = 2, kRepeats = 11;
    std::vector<double> times;
    for (int repeat = 0; repeat < kWarmUps + kRepeats; ++repeat) {
      check_cuda(cudaEventRecord(begin_, static_cast<cudaStream_t>(stream_)));
      run();
      check_cuda(cudaEventRecord(end_, static_cast<cudaStream_t>(stream_)));
      synchronise(stream_);
      float milliseconds = 0;
      check_cuda(cudaEventElapsedTime(&milliseconds, begin_, end_));
      if (repeat >= kWarmUps) times.push_back(1000.0 * milliseconds);
    }
    std::nth_element(times.begin(), times.begin() + kRepeats / 2, times.end());
    const double microseconds = times[kRepeats / 2], rate = bytes / microseconds * 1e-3;
    std::printf("%-44s %10.1f %8.0f %5.0f%%\n", name, microseconds, rate, 100 * rate / ceiling_);
  }

 private:
  CudaStream stream_;
  double ceiling_;
  cudaEvent_t begin_{}, end_{};
};

// Bytes of so many arrays [tokens, width] of bf16.
double bytes_of(int64_t arrays, int64_t width, int64_t tokens = kTokens) {
  return 2.0 * static_cast<double>(arrays * tokens * width);
}

DeviceMemory document_starts(int64_t documents, int64_t length) {
  std::vector<int32_t> starts;
  for (int64_t d = 0; d <= documents; ++d) starts.push_back(static_cast<int32_t>(d * length));
  DeviceMemory memory(static_cast<int64_t>(starts.size() * sizeof(int32_t)));
  memory.write(starts.data(), memory.bytes());
  return memory;
}

void bench_rms_norm(Bench& bench, const char* name, int64_t channels, int64_t group, bool gated) {
  const int64_t count = kTokens * channels;
  const Array<Bf16> x(count), z(gated ? count : 1), weight(channels), dy(count), y(count),
      dx(count), dz(gated ? count : 1);
  const Array<float> inverse_rms(kTokens * channels / group), dweight(channels);
  const DeviceMemory scratch(rms_norm_backward_scratch_bytes(kTokens, channels, group));
  RmsNormBackwardParams<Bf16> p;
  p.forward = {.rows = kTokens,
               .channels = channels,
               .group_size = group,
               .eps = 1e-5f,
               .x = x.data(),
               .x_stride = channels,
               .z = gated ? z.data() : nullptr,
               .z_stride = channels,
               .weight = weight.data(),
               .y = y.data(),
               .inverse_rms = inverse_rms.data()};
  p.dy = dy.data();
  p.dx = dx.data();
  p.dz = dz.data();
  p.dweight = dweight.data();
  std::printf("%s\n", name);
  bench.report("  forward", bytes_of(gated ? 3 : 2, channels),
               [&] { rms_norm_forward_cuda(p.forward, bench.stream()); });
  bench.report("  backward", bytes_of(gated ? 5 : 3, channels),
               [&] { rms_norm_backward_cuda(p, scratch.as<void>(), bench.stream()); });
}

void bench_swiglu(Bench& bench, int64_t width) {
  const int64_t count = kTokens * width;
  const Array<Bf16> gate(count), up(count), dy(count), y(count), dgate(count), dup(count);
  const SwiGluRowsParams<Bf16> p{kTokens, width, gate.data(), width, up.data(), width, y.data()};
  std::printf("swiglu, %lld wide\n", static_cast<long long>(width));
  bench.report("  forward", bytes_of(3, width), [&] { swiglu_forward_cuda(p, bench.stream()); });
  bench.report("  backward", bytes_of(5, width), [&] {
    swiglu_backward_cuda<Bf16>({p, dy.data(), dgate.data(), dup.data(), width}, bench.stream());
  });
}

void bench_rotary(Bench& bench, int64_t heads, int64_t width) {
  const Array<Bf16> x(kTokens * heads * width), y(kTokens * heads * width);
  const Array<float> cos(kTokens * width / 2), sin(kTokens * width / 2);
  std::printf("rotary, %lld heads of %lld\n", static_cast<long long>(heads),
              static_cast<long long>(width));
  bench.report("  either way", bytes_of(2, heads * width) + 2 * bytes_of(1, width), [&] {
    rotary_cuda<Bf16>(
        {kTokens, heads, width, x.data(), heads * width, cos.data(), sin.data(), false, y.data()},
        bench.stream());
  });
}

void bench_causal_conv1d(Bench& bench, int64_t channels) {
  const int64_t count = kTokens * channels;
  const Array<Bf16> x(count), weight(channels * 4), bias(channels), dy(count), y(count), dx(count);
  const Array<float> dweight(channels * 4), dbias(channels);
  const DeviceMemory starts = document_starts(kDocuments, kTokens / kDocuments);
  const DeviceMemory scratch(causal_conv1d_backward_scratch_bytes(kTokens, channels, 4));
  CausalConv1dCudaBackwardParams<Bf16> p;
  p.forward = {.starts = starts.as<int32_t>(),
               .documents = kDocuments,
               .tokens = kTokens,
               .channels = channels,
               .width = 4,
               .silu = true,
               .x = x.data(),
               .x_stride = channels,
               .weight = weight.data(),
               .bias = bias.data(),
               .y = y.data(),
               .y_stride = channels};
  p.dy = dy.data();
  p.dx = dx.data();
  p.dweight = dweight.data();
  p.dbias = dbias.data();
  std::printf("causal_conv1d, %lld channels, width 4\n", static_cast<long long>(channels));
  bench.report("  forward", bytes_of(2, channels),
               [&] { causal_conv1d_forward_cuda(p.forward, bench.stream()); });
  bench.report("  backward", bytes_of(3, channels),
               [&] { causal_conv1d_backward_cuda(p, scratch.as<void>(), bench.stream()); });
}

struct ScanShape {
  int64_t documents, length, channels, d_state, b_groups, c_groups;
};

// Bytes: x, dt, y and B, C forward; those but y, and dy, dx, ddt, dB, dC backward.
void bench_selective_scan(Bench& bench, const ScanShape& s) {
  const int64_t tokens = s.documents * s.length, count = tokens * s.channels,
                b_width = s.b_groups * s.d_state, c_width = s.c_groups * s.d_state;
  const Array<Bf16> x(count), dt(count, 1, -3), B(tokens * b_width), C(tokens * c_width), dy(count),
      y(count), dx(count), ddt(count), dB(tokens * b_width), dC(tokens * c_width);
  const Array<float> A(s.channels * s.d_state, 0.9f, -1), dt_bias(s.channels), D(s.channels);
  const Array<float> dA(s.channels * s.d_state), ddt_bias(s.channels), dD(s.channels);
  const DeviceMemory starts = document_starts(s.documents, s.length);
  SelectiveScanCudaBackwardParams<Bf16> p;
  p.forward = {.documents = s.documents,
               .starts = starts.as<int32_t>(),
               .tokens = tokens,
               .channels = s.channels,
               .d_state = s.d_state,
               .b_groups = s.b_groups,
               .c_groups = s.c_groups,
               .x = x.data(),
               .x_stride = s.channels,
               .dt = dt.data(),
               .dt_stride = s.channels,
               .dt_bias = dt_bias.data(),
               .A = A.data(),
               .B = B.data(),
               .b_stride = b_width,
               .C = C.data(),
               .c_stride = c_width,
               .D = D.data(),
               .y = y.data()};
  const DeviceMemory checkpoints(selective_scan_checkpoint_bytes(p.forward)),
      scratch(selective_scan_backward_scratch_bytes(p.forward));
  p.dy = dy.data();
  p.dx = dx.data();
  p.ddt = ddt.data();
  p.ddt_bias = ddt_bias.data();
  p.dA = dA.data();
  p.dB = dB.data();
  p.dC = dC.data();
  p.dD = dD.data();
  std::printf("selective_scan, %lld x %lld tokens, %lld channels, %lld states\n",
              static_cast<long long>(s.documents), static_cast<long long>(s.length),
              static_cast<long long>(s.channels), static_cast<long long>(s.d_state));
  const double states = bytes_of(1, b_width + c_width, tokens),
               forward = bytes_of(3, s.channels, tokens) + states;
  bench.report("  forward", forward,
               [&] { selective_scan_forward_cuda(p.forward, bench.stream()); });
  p.forward.checkpoints = checkpoints.as<float>();
  bench.report("  forward, keeping states", forward,
               [&] { selective_scan_forward_cuda(p.forward, bench.stream()); });
  bench.report("  backward", bytes_of(5, s.channels, tokens) + 2 * states,
               [&] { selective_scan_backward_cuda(p, scratch.as<void>(), bench.stream()); });
}

// The gradient takes the student's place, so that every run but the first reads small numbers.
void bench_logit_loss(Bench& bench, int64_t rows, int64_t vocab) {
  const Array<Bf16> student(rows * vocab, 10), teacher(rows * vocab, 10);
  const Array<float> kl_scale(rows), ce_scale(rows), kl(rows), ce(rows);
  const DeviceMemory agrees(rows);
  std::vector<int64_t> labels;
  for (int64_t row = 0; row < rows; ++row) labels.push_back(row * 7919 % vocab);
  DeviceMemory on_device(rows * static_cast<int64_t>(sizeof(int64_t)));
  on_device.write(labels.data(), on_device.bytes());
  const LogitLossParams<Bf16> p{rows,
                                vocab,
                                true,
                                student.data(),
                                teacher.data(),
                                on_device.as<int64_t>(),
                                kl_scale.data(),
                                ce_scale.data(),
                                kl.data(),
                                ce.data(),
                                agrees.as<uint8_t>()};
  std::printf("logit_loss, %lld rows of %lld\n", static_cast<long long>(rows),
              static_cast<long long>(vocab));
  bench.report("  with gradient", 6.0 * static_cast<double>(rows * vocab),
               [&] { logit_loss_cuda(p, bench.stream()); });
}

void bench_all(std::string_view name) {
  use_cuda_device(0);
  Bench bench;
  const auto wanted = [&](std::string_view kernel) { return kernel.starts_with(name); };
  if (wanted("rms_norm")) {
    bench_rms_norm(bench, "rms_norm, 576 channels", 576, 576, false);
    bench_rms_norm(bench, "rms_norm, 4096 channels", 4096, 4096, false);
    bench_rms_norm(bench, "rms_norm, 4096 channels in groups of 128, gated", 4096, 128, true);
    bench_rms_norm(bench, "rms_norm, 576 channels in groups of 64, gated", 576, 64, true);
  }
  if (wanted("swiglu")) {
    bench_swiglu(bench, 1536);
    bench_swiglu(bench, 14336);
  }
  if (wanted("rotary")) {
    bench_rotary(bench, 9, 64);
    bench_rotary(bench, 32, 128);
  }
  if (wanted("causal_conv1d")) {
    bench_causal_conv1d(bench, 960);
    bench_causal_conv1d(bench, 5120);
  }
  if (wanted("logit_loss")) {
    bench_logit_loss(bench, 4096, 49152);
    bench_logit_loss(bench, 2048, 128256);
  }
  if (wanted("selective_scan")) {
    bench_selective_scan(bench, {8, 2048, 5120, 16, 1, 1});
    bench_selective_scan(bench, {64, 512, 576, 64, 3, 9});
    bench_selective_scan(bench, {8, 2048, 4096, 128, 8, 32});
  }
}

}  // namespace
}  // namespace mambify::kernels

int main(int argc, char** argv) {
  try {
    mambify::kernels::bench_all(argc > 1 ? argv[1] : "");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
