#include "kernels/multi_step/step.cuh"

namespace mambify::kernels {
namespace {

using namespace multi_step;

constexpr int kChannels = 32;  // of a block
constexpr int kTokens = 8;     // that a block computes at once
constexpr int kSpan = 64;      // and in all

template <typename T>
__global__ void __launch_bounds__(kChannels* kTokens)
    conv_step(const ConvStepParams<T> p, const Prefetch next, int tiles, int spans, int work) {
  start_successor();
  const int block = blockIdx.x;
  if (block >= work) return prefetch_to_l2(next, block - work, gridDim.x - work);
  const int number = block / tiles / spans, channels = static_cast<int>(p.channels);
  const int first = block / tiles % spans * kSpan;
  const int channel = block % tiles * kChannels + threadIdx.x % kChannels;
  const Filter<T> filter(p.weight, p.bias, min(channel, channels - 1), static_cast<int>(p.d_conv));

  const PassSequence s = load_sequence(p.sequences + number);
  const Places places(s, static_cast<int>(p.ring_slots), s.base + s.pending);

  wait_for_predecessor();
  if (channel >= channels) return;
  const int end = min(first + kSpan, s.tokens);
  for (int t = first + threadIdx.x / kChannels; t < end; t += kTokens) {
    float x[kTaps];
    filter.template load<1>(x, p.x + channel, static_cast<int>(p.x_stride), places, t, t);
    p.y[places.at(t) * p.y_stride + channel] = rounded<T>(filter(x, /*activation=*/true));
  }
}

}  // namespace

template <typename T>
void conv_step_cuda(const ConvStepParams<T>& p, const Prefetch& next, CudaStream stream) {
  require(p.d_conv >= 1 && p.d_conv <= kTaps, "convolution on CUDA: d_conv is not 1 to 4");
  if (p.n_sequences == 0) return;
  const int64_t tiles = (p.channels + kChannels - 1) / kChannels;
  const int64_t spans = (p.max_tokens + kSpan - 1) / kSpan;
  const int64_t work = p.n_sequences * tiles * spans;
  launch(conv_step<T>, dim3(work + prefetch_blocks(next)), dim3(kChannels * kTokens), /*shared=*/0,
         stream, p, next, static_cast<int>(tiles), static_cast<int>(spans), static_cast<int>(work));
}

template void conv_step_cuda(const ConvStepParams<float>&, const Prefetch&, CudaStream);
template void conv_step_cuda(const ConvStepParams<Bf16>&, const Prefetch&, CudaStream);

}  // namespace mambify::kernels
