#include <algorithm>

#include "kernels/causal_conv1d/params.h"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/sum_parts.h"

// A warp takes a run of tokens and 32 times kCount channels, whose last inputs stay in registers: a
// thread's lane is its channels, and all lanes are at the same token. A filter of fewer than kTaps
// taps is one of kTaps whose first are zero.

namespace mambify::kernels {
namespace {

// Tokens that are computed while as many others are loaded.
constexpr int kForwardBatch = 4, kBackwardBatch = 2;
constexpr int kForwardWarps = 4, kBackwardWarps = 8;
constexpr int kChannels = 4;  // of a thread
constexpr int64_t kLongestRun = 64, kShortestRun = 8;
constexpr int64_t kEnoughWarps = 132 * 32;

template <int kTaps, int kCount>
struct Filter {
  Elements<kCount> taps[kTaps];
  Elements<kCount> bias;
};

template <int kTaps, int kCount, typename T>
__device__ inline Filter<kTaps, kCount> load_filter(const CausalConv1dCudaParams<T>& p,
                                                    int64_t channel) {
  const int width = static_cast<int>(p.width);
  Filter<kTaps, kCount> filter;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    filter.bias[i] = p.bias ? as_float(p.bias[channel + i]) : 0;
#pragma unroll
    for (int k = 0; k < kTaps; ++k) {
      const int tap = k - (kTaps - width);
      filter.taps[k][i] = tap >= 0 ? as_float(p.weight[(channel + i) * width + tap]) : 0;
    }
  }
  return filter;
}

// Walks over the documents of a run of tokens.
struct Documents {
  __device__ Documents(const int32_t* all_starts, int documents, int token) : starts(all_starts) {
    document = document_of(starts, documents, token);
    start = starts[document];
    end = starts[document + 1];
  }
  // Goes on to the next token; true where a document begins.
  __device__ bool enter(int token) {
    if (token < end) return token == start;
    while (token >= end) end = starts[++document + 1];
    start = token;
    return true;
  }
  const int32_t* starts;
  int document, start, end;
};

template <int kTaps, int kCount>
__device__ inline Elements<kCount> convolve(const Filter<kTaps, kCount>& filter,
                                            const Elements<kCount>* inputs) {
  Elements<kCount> sum = filter.bias;
#pragma unroll
  for (int k = 0; k < kTaps; ++k) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum[i] += filter.taps[k][i] * inputs[k][i];
  }
  return sum;
}

// The channel of x that a channel reads.
template <typename T>
__device__ inline int64_t input_channel(const CausalConv1dCudaParams<T>& p, int64_t channel) {
  return channel / (p.x_block * p.x_repeats) * p.x_block + channel % p.x_block;
}

// The kTaps - 1 inputs before a token, zeros before its document's start.
template <int kTaps, int kCount, typename T>
__device__ inline void load_window(const T* rows, int64_t stride, int token, int start,
                                   Elements<kCount>* window) {
#pragma unroll
  for (int k = 0; k < kTaps - 1; ++k) {
    const int source = token - (kTaps - 1) + k;
    window[k] = Elements<kCount>{};
    if (source >= start) window[k] = load_elements<kCount>(rows + source * stride);
  }
}

// The channels of kBatch tokens from `begin` on; zeros from `end` on.
template <int kBatch, int kCount, typename T>
__device__ inline void load_batch(const T* rows, int64_t stride, int begin, int end,
                                  ElementBits<T, kCount> (&batch)[kBatch]) {
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
    batch[j] = {};
    if (begin + j < end) {
      batch[j] = *reinterpret_cast<const ElementBits<T, kCount>*>(rows + (begin + j) * stride);
    }
  }
}

template <typename T, int kTaps, int kCount>
__global__ void __launch_bounds__(32 * kForwardWarps)
    forward(CausalConv1dCudaParams<T> p, int run) {
  constexpr int kBatch = kForwardBatch;
  const int64_t channel = (int64_t{blockIdx.x} * 32 + threadIdx.x) * kCount;
  const int first = (blockIdx.y * kForwardWarps + threadIdx.y) * run;
  const int last = min(first + run, static_cast<int>(p.tokens));
  if (first >= last || channel >= p.channels) return;
  const auto filter = load_filter<kTaps, kCount>(p, channel);
  Documents documents(p.starts, static_cast<int>(p.documents), first);
  Elements<kCount> x[kTaps - 1 + kBatch];  // the inputs before the batch, and its own
  const T* x_rows = p.x + input_channel(p, channel);
  load_window<kTaps>(x_rows, p.x_stride, first, documents.start, x);
  ElementBits<T, kCount> next[kBatch];
  load_batch<kBatch, kCount>(x_rows, p.x_stride, first, last, next);
  for (int begin = first; begin < last; begin += kBatch) {
#pragma unroll
    for (int j = 0; j < kBatch; ++j) x[kTaps - 1 + j] = elements_of<T, kCount>(next[j]);
    load_batch<kBatch, kCount>(x_rows, p.x_stride, begin + kBatch, last, next);
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int token = begin + j;
      if (token >= last) break;
      if (documents.enter(token)) {
#pragma unroll
        for (int k = 0; k < kTaps - 1; ++k) x[j + k] = Elements<kCount>{};
      }
      auto y = convolve(filter, x + j);
      if (p.silu) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) y[i] = silu(y[i]);
      }
      store_elements(y, p.y + token * p.y_stride + channel);
    }
#pragma unroll
    for (int k = 0; k < kTaps - 1; ++k) x[k] = x[k + kBatch];
  }
}

// What a run adds to the gradients of the filter, of which `taps` and bias those of the inputs.
// Beyond its own tokens a warp looks at the kTaps - 1 behind them, whose gradients reach into it.
// partial: [blocks in y, channels, width + 1], the last that of the bias.
template <typename T, int kTaps, int kCount>
__global__ void __launch_bounds__(32 * kBackwardWarps)
    backward(CausalConv1dCudaBackwardParams<T> p, int run, float* __restrict__ partial) {
  constexpr int kBatch = kBackwardBatch, kReach = kTaps - 1, kSums = (kTaps + 1) * kCount;
  __shared__ float sums[kSums][kBackwardWarps][32];
  const CausalConv1dCudaParams<T>& f = p.forward;
  const int64_t channel = (int64_t{blockIdx.x} * 32 + threadIdx.x) * kCount;
  const int tokens = static_cast<int>(f.tokens);
  const int first = (blockIdx.y * kBackwardWarps + threadIdx.y) * run;
  const int last = min(first + run, tokens);
  Filter<kTaps, kCount> gradient{};
  if (first < last && channel < f.channels) {
    const auto filter = load_filter<kTaps, kCount>(f, channel);
    Documents documents(f.starts, static_cast<int>(f.documents), first);
    Elements<kCount> x[kReach + kBatch], dx[kReach + kBatch]{}, dy[kBatch];
    const T* x_rows = f.x + input_channel(f, channel);
    load_window<kTaps>(x_rows, f.x_stride, first, documents.start, x);
    const int loaded = min(last + kReach, tokens);
    ElementBits<T, kCount> next_x[kBatch], next_dy[kBatch];
    const auto load_next = [&](int begin) {
      load_batch<kBatch, kCount>(x_rows, f.x_stride, begin, loaded, next_x);
      load_batch<kBatch, kCount>(p.dy + channel, f.channels, begin, loaded, next_dy);
    };
    load_next(first);
    for (int begin = first; begin < last + kReach; begin += kBatch) {
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        x[kReach + j] = elements_of<T, kCount>(next_x[j]);
        dy[j] = elements_of<T, kCount>(next_dy[j]);
      }
      load_next(begin + kBatch);
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int token = begin + j;
        // Behind the run only the document of its last token goes on.
        if (token < last ? documents.enter(token) : token >= documents.end) {
#pragma unroll
          for (int k = 0; k < kReach; ++k) x[j + k] = Elements<kCount>{};
          if (token >= last) dy[j] = Elements<kCount>{};
        }
        auto g = dy[j];
        if (f.silu) {
          const auto sum = convolve(filter, x + j);
#pragma unroll
          for (int i = 0; i < kCount; ++i) g[i] *= silu_gradient(sum[i], sigmoid(sum[i]));
        }
        const int reach = min(kReach, token - documents.start);
#pragma unroll
        for (int k = 0; k < kTaps; ++k) {
          if (kReach - k > reach) continue;
#pragma unroll
          for (int i = 0; i < kCount; ++i) dx[j + k][i] += g[i] * filter.taps[k][i];
        }
        if (token < last) {
#pragma unroll
          for (int i = 0; i < kCount; ++i) {
            gradient.bias[i] += g[i];
#pragma unroll
            for (int k = 0; k < kTaps; ++k) gradient.taps[k][i] += g[i] * x[j + k][i];
          }
        }
        const int finished = token - kReach;
        if (finished >= first && finished < last) {
          store_elements(dx[j], p.dx + finished * f.channels + channel);
        }
      }
#pragma unroll
      for (int k = 0; k < kReach; ++k) {
        x[k] = x[k + kBatch];
        dx[k] = dx[k + kBatch];
      }
#pragma unroll
      for (int k = kReach; k < kReach + kBatch; ++k) dx[k] = Elements<kCount>{};
    }
  }

#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int k = 0; k < kTaps; ++k)
      sums[k * kCount + i][threadIdx.y][threadIdx.x] = gradient.taps[k][i];
    sums[kTaps * kCount + i][threadIdx.y][threadIdx.x] = gradient.bias[i];
  }
  __syncthreads();
  if (channel >= f.channels) return;
  const int width = static_cast<int>(f.width);
  for (int s = threadIdx.y; s < kSums; s += kBackwardWarps) {
    // The place among the sums of the channel; those of the taps that are always zero have none.
    const int tap = s / kCount - (kTaps - width);
    if (tap < 0) continue;
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < kBackwardWarps; ++warp) sum += sums[s][warp][threadIdx.x];
    const int64_t all = f.channels * width, c = channel + s % kCount;
    const int64_t place = tap < width ? c * width + tap : all + c;
    partial[blockIdx.y * (all + f.channels) + place] = sum;
  }
}

// Tokens of a warp: long runs look at fewer tokens twice, short ones keep a small problem in many
// warps.
int run_of(int64_t tokens, int64_t channels) {
  const int64_t columns = (channels + 32 * kChannels - 1) / (32 * kChannels);
  return static_cast<int>(std::clamp(tokens * columns / kEnoughWarps, kShortestRun, kLongestRun));
}

int64_t parts_of(int64_t tokens, int64_t channels) {
  const int64_t per_block = run_of(tokens, channels) * int64_t{kBackwardWarps};
  return (tokens + per_block - 1) / per_block;
}

template <int kCount>
unsigned columns_of(int64_t channels) {
  return static_cast<unsigned>((channels + 32 * kCount - 1) / (32 * kCount));
}

template <typename T, int kTaps, int kCount>
void start_forward(const CausalConv1dCudaParams<T>& p, CudaStream stream) {
  const int run = run_of(p.tokens, p.channels);
  const int64_t per_block = int64_t{run} * kForwardWarps;
  const dim3 grid(columns_of<kCount>(p.channels),
                  static_cast<unsigned>((p.tokens + per_block - 1) / per_block));
  forward<T, kTaps, kCount>
      <<<grid, dim3(32, kForwardWarps), 0, static_cast<cudaStream_t>(stream)>>>(p, run);
  check_cuda(cudaGetLastError());
}

template <typename T, int kTaps, int kCount>
void start_backward(const CausalConv1dCudaBackwardParams<T>& p, float* partial, CudaStream stream) {
  const CausalConv1dCudaParams<T>& f = p.forward;
  const dim3 grid(columns_of<kCount>(f.channels),
                  static_cast<unsigned>(parts_of(f.tokens, f.channels)));
  backward<T, kTaps, kCount>
      <<<grid, dim3(32, kBackwardWarps), 0, static_cast<cudaStream_t>(stream)>>>(
          p, run_of(f.tokens, f.channels), partial);
  check_cuda(cudaGetLastError());
}

void check_sizes(int64_t width, int64_t tokens) {
  require(width >= 1 && width <= kMaxConvWidth, "causal_conv1d: the filter is too wide");
  constexpr int64_t kMostTokens = int64_t{1} << 19;  // 65,535 blocks of the shortest runs
  require(tokens <= kMostTokens, "causal_conv1d: too many tokens at once");
}

constexpr int kUsualTaps = 4, kMostTaps = static_cast<int>(kMaxConvWidth);

// Whether the channels of a thread may be kChannels.
template <typename T>
bool inputs_in_vectors(const CausalConv1dCudaParams<T>& p) {
  return p.channels % kChannels == 0 && (p.x_repeats == 1 || p.x_block % kChannels == 0) &&
         in_vectors(p.x, p.x_stride, kChannels);
}

template <typename T>
void start_forward(const CausalConv1dCudaParams<T>& p, CudaStream stream) {
  if (p.tokens == 0) return;
  const bool vectors = inputs_in_vectors(p) && in_vectors(p.y, p.y_stride, kChannels);
  if (p.width <= kUsualTaps) {
    return vectors ? start_forward<T, kUsualTaps, kChannels>(p, stream)
                   : start_forward<T, kUsualTaps, 1>(p, stream);
  }
  return vectors ? start_forward<T, kMostTaps, kChannels>(p, stream)
                 : start_forward<T, kMostTaps, 1>(p, stream);
}

template <typename T>
void start_backward(const CausalConv1dCudaBackwardParams<T>& p, float* partial, CudaStream stream) {
  const CausalConv1dCudaParams<T>& f = p.forward;
  if (f.tokens == 0) return;
  const bool vectors = inputs_in_vectors(f) && in_vectors(p.dy, f.channels, kChannels) &&
                       in_vectors(p.dx, f.channels, kChannels);
  if (f.width <= kUsualTaps) {
    return vectors ? start_backward<T, kUsualTaps, kChannels>(p, partial, stream)
                   : start_backward<T, kUsualTaps, 1>(p, partial, stream);
  }
  return vectors ? start_backward<T, kMostTaps, kChannels>(p, partial, stream)
                 : start_backward<T, kMostTaps, 1>(p, partial, stream);
}

}  // namespace

template <typename T>
void causal_conv1d_forward_cuda(const CausalConv1dCudaParams<T>& p, CudaStream stream) {
  check_sizes(p.width, p.tokens);
  start_forward(p, stream);
}

int64_t causal_conv1d_backward_scratch_bytes(int64_t tokens, int64_t channels, int64_t width) {
  return parts_of(tokens, channels) * channels * (width + 1) * static_cast<int64_t>(sizeof(float));
}

template <typename T>
void causal_conv1d_backward_cuda(const CausalConv1dCudaBackwardParams<T>& p, void* scratch,
                                 CudaStream stream) {
  const CausalConv1dCudaParams<T>& f = p.forward;
  check_sizes(f.width, f.tokens);
  auto* partial = static_cast<float*>(scratch);
  start_backward(p, partial, stream);
  SumPartsParams sum{.partial = partial,
                     .parts = parts_of(f.tokens, f.channels),
                     .stride = f.channels * (f.width + 1),
                     .columns = f.channels * f.width,
                     .total = p.dweight};
  sum_parts_cuda(sum, stream);
  if (!p.dbias) return;
  sum.partial += sum.columns;
  sum.columns = f.channels;
  sum.total = p.dbias;
  sum_parts_cuda(sum, stream);
}

template void causal_conv1d_forward_cuda(const CausalConv1dCudaParams<float>&, CudaStream);
template void causal_conv1d_forward_cuda(const CausalConv1dCudaParams<Bf16>&, CudaStream);
template void causal_conv1d_backward_cuda(const CausalConv1dCudaBackwardParams<float>&, void*,
                                          CudaStream);
template void causal_conv1d_backward_cuda(const CausalConv1dCudaBackwardParams<Bf16>&, void*,
                                          CudaStream);

}  // namespace mambify::kernels
