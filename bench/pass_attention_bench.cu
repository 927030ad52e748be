// Times attention of decoding passes at the shape of an 8B Llama's layer, by a graph of launches
// over caches that together do not fit in L2, and prints the share of the cache's bytes per second.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/pass_attention/params.h"

namespace mambify::kernels {
namespace {

constexpr int64_t kHeads = 32, kKvHeads = 8, kHeadDim = 128;
constexpr int kLaunches = 32, kRuns = 5;

// Numbers that are neither zeros nor all alike.
__global__ void fill(Bf16* values, int64_t count) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const uint32_t hash = static_cast<uint32_t>(i) * 2654435761u;
    values[i] = rounded<Bf16>(static_cast<float>(hash >> 8) * (2.0f / (1 << 24)) - 1.0f);
  }
}

DeviceMemory random_memory(int64_t count) {
  DeviceMemory memory(count * 2);
  fill<<<1024, 256>>>(memory.as<Bf16>(), count);
  check_cuda(cudaDeviceSynchronize());
  return memory;
}

// Microseconds of one launch, the fastest of some runs.
double time_of(CudaGraph& graph, CudaStream stream) {
  cudaEvent_t begin, end;
  check_cuda(cudaEventCreate(&begin));
  check_cuda(cudaEventCreate(&end));
  graph.launch(stream);
  float fastest = 1e30f;
  for (int run = 0; run < kRuns; ++run) {
    check_cuda(cudaEventRecord(begin, static_cast<cudaStream_t>(stream)));
    graph.launch(stream);
    check_cuda(cudaEventRecord(end, static_cast<cudaStream_t>(stream)));
    check_cuda(cudaEventSynchronize(end));
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin, end));
    fastest = std::min(fastest, milliseconds);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return fastest * 1e3 / kLaunches;
}

// streams: a long piece of a prompt, whose rate is that of its arithmetic.
void measure(int32_t batch, int32_t context, int32_t tokens, bool streams, CudaStream stream) {
  const int64_t row = kKvHeads * context * kHeadDim;  // elements of a sequence's keys
  const int64_t bytes = 2 * batch * row * 2;          // of a layer, keys and values
  const int64_t free = cuda_free_bytes() - (int64_t{2} << 30);
  if (bytes > free) {
    std::printf("%5d %8d %6d   needs %.0f GB\n", batch, context, tokens, bytes / 1e9);
    return;
  }
  constexpr int64_t kPastL2 = int64_t{400} << 20;
  const int64_t layers =
      std::max<int64_t>(1, std::min<int64_t>({kLaunches, free / bytes, kPastL2 / bytes + 1}));
  const DeviceMemory keys = random_memory(layers * batch * row);
  const DeviceMemory values = random_memory(layers * batch * row);

  PassAttentionParams<Bf16> p;
  p.n_sequences = batch;
  p.max_tokens = tokens;
  p.splits = (context + kAttentionSplit - 1) / kAttentionSplit;
  p.heads = kHeads;
  p.kv_heads = kKvHeads;
  p.head_dim = kHeadDim;
  p.scale = 0.088388f;
  p.capacity = context;
  p.streams = streams;
  std::vector<PassSequence> sequences(batch);
  for (int32_t s = 0; s < batch; ++s) {
    sequences[s] = {.row = s, .first = s * tokens, .tokens = tokens, .base = context - tokens};
  }
  DeviceMemory on_device(batch * static_cast<int64_t>(sizeof(PassSequence)));
  on_device.write(sequences.data(), on_device.bytes());
  const int64_t all = batch * tokens;
  const DeviceMemory qkv = random_memory(all * (kHeads + 2 * kKvHeads) * kHeadDim);
  const DeviceMemory angles(context * kHeadDim / 2 * 4);  // zeros: what they are takes no time
  const DeviceMemory parts(streams ? pass_attention_stream_bytes(all, kHeads, kHeadDim)
                                   : pass_attention_scratch_bytes(all, kHeads, kHeadDim, p.splits));
  const DeviceMemory counters(4 * pass_attention_counters(batch, kKvHeads, p.splits));
  const DeviceMemory y(all * kHeads * kHeadDim * 2);
  p.sequences = on_device.as<PassSequence>();
  p.qkv = qkv.as<Bf16>();
  p.cos = p.sin = angles.as<float>();
  p.parts = parts.as<float>();
  p.counters = counters.as<int32_t>();
  p.y = y.as<Bf16>();

  CudaGraph graph;
  graph.begin(stream);
  for (int i = 0; i < kLaunches; ++i) {
    p.keys = keys.as<Bf16>() + i % layers * batch * row;
    p.values = values.as<Bf16>() + i % layers * batch * row;
    pass_attention_cuda(p, {}, stream);
  }
  graph.end(stream);
  const double microseconds = time_of(graph, stream);
  std::printf("%5d %8d %6d %12.2f %9.0f", batch, context, tokens, microseconds,
              bytes / microseconds * 1e-3);
  const double read = context - (tokens - 1) / 2.0;  // positions, by a token on average
  if (streams) std::printf(" %9.0f", 4 * all * kHeads * kHeadDim * read / microseconds * 1e-6);
  std::printf("\n");
}

}  // namespace
}  // namespace mambify::kernels

int main() {
  using namespace mambify::kernels;
  use_cuda_device(0);
  const CudaStream stream = create_cuda_stream();
  std::printf("%s, attention of a pass, 32/8 heads x 128, bf16\n", cuda_device_name().c_str());
  std::printf("batch  context tokens      µs/layer      GB/s   TFLOP/s\n");
  for (const int32_t batch : {1, 8, 64}) {
    for (const int32_t context : {200, 2048, 32768, 131072}) {
      for (const int32_t tokens : {1, 5}) measure(batch, context, tokens, false, stream);
    }
  }
  for (const int32_t context : {1024, 2048, 32768}) measure(1, context, 1024, true, stream);
  destroy_cuda_stream(stream);
}
