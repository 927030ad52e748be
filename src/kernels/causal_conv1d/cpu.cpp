#include <algorithm>
#include <cassert>
#include <vector>

#include "kernels/causal_conv1d/params.h"
#include "kernels/math.h"
#include "kernels/parallel.h"

namespace mambify::kernels {
namespace {

using Params = CausalConv1dParams<float>;
using BackwardParams = CausalConv1dBackwardParams<float>;

constexpr int64_t kTokenBlock = 64;    // tokens of one forward task
constexpr int64_t kChannelBlock = 64;  // channels of one backward task

// Functions below that take a width are compiled twice: for Mamba's 4, with its loops unrolled, and
// for any other.
constexpr int kUsualWidth = 4;

// The input rows under each tap of one token, for some range of channels.
struct Taps {
  const float* rows[kMaxConvWidth];
};

// The columns of one document's initial window as rows: [width - 1][channels], zeros without one.
void transpose_window(const Params& p, int64_t document, int64_t first_channel, int64_t channels,
                      float* rows) {
  const int64_t columns = p.width - 1;
  for (int64_t k = 0; k < columns; ++k) {
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t channel = document * p.channels + first_channel + c;
      rows[k * channels + c] = p.initial_window ? p.initial_window[channel * columns + k] : 0.0f;
    }
  }
}

// window: as transpose_window leaves it for the same channels.
MAMBIFY_INLINE Taps taps_of(const Params& p, int width, int64_t start, int64_t position,
                            int64_t first_channel, const float* window, int64_t window_stride) {
  Taps taps;
  for (int k = 0; k < width; ++k) {
    const int64_t source = position - (width - 1) + k;
    taps.rows[k] = source >= 0 ? p.x + (start + source) * p.x_stride + first_channel
                               : window + (width - 1 + source) * window_stride;
  }
  return taps;
}

// weight: [width][weight_stride]
MAMBIFY_INLINE float convolve(const Taps& taps, int width, const float* weight,
                              int64_t weight_stride, const float* bias, int64_t c) {
  float sum = bias[c];
  for (int k = 0; k < width; ++k) sum += weight[k * weight_stride + c] * taps.rows[k][c];
  return sum;
}

// The tokens of `range`, any part of the packed row. weight: [width][channels]; window is scratch.
MAMBIFY_INLINE void forward_range(const Params& p, int width, Range range, const float* weight,
                                  const float* bias, float* window) {
  int64_t document = std::upper_bound(p.starts, p.starts + p.documents, range.begin) - p.starts - 1;
  int64_t window_of = -1;
  for (int64_t t = range.begin; t < range.end; ++t) {
    while (t >= p.starts[document + 1]) ++document;
    const int64_t start = p.starts[document], position = t - start;
    if (position < width - 1 && window_of != document) {
      transpose_window(p, document, 0, p.channels, window);
      window_of = document;
    }
    const Taps taps = taps_of(p, width, start, position, 0, window, p.channels);
    float* y = p.y + t * p.y_stride;
    // NOLINTNEXTLINE(bugprone-branch-clone): clang-tidy does not see into OpenMP loops.
    if (p.silu) {
#pragma omp simd
      for (int64_t c = 0; c < p.channels; ++c) {
        y[c] = fast_silu(convolve(taps, width, weight, p.channels, bias, c));
      }
    } else {
#pragma omp simd
      for (int64_t c = 0; c < p.channels; ++c) {
        y[c] = convolve(taps, width, weight, p.channels, bias, c);
      }
    }
  }
}

MAMBIFY_CLONES void forward_tokens(const Params& p, Range range, const float* weight,
                                   const float* bias, float* window) {
  if (p.width == kUsualWidth) {
    forward_range(p, kUsualWidth, range, weight, bias, window);
  } else {
    forward_range(p, static_cast<int>(p.width), range, weight, bias, window);
  }
}

// One task of the backward pass: what it needs of its channels, transposed to [width][channels].
struct ChannelBlock {
  float weight[kMaxConvWidth * kChannelBlock] = {}, dweight[kMaxConvWidth * kChannelBlock] = {};
  float bias[kChannelBlock] = {}, dbias[kChannelBlock] = {};
  float window[kMaxConvWidth * kChannelBlock];
  float gradient[kChannelBlock];  // of one token's convolution
};

MAMBIFY_INLINE void backward_token(const BackwardParams& p, int width, const Taps& taps,
                                   int64_t token, int64_t position, int64_t first, int64_t count,
                                   ChannelBlock& block) {
  const Params& f = p.forward;
  const float* dy = p.dy + token * f.channels + first;
  float* dx = p.dx + token * f.channels + first;
  float* gradient = block.gradient;
  if (f.silu) {
#pragma omp simd
    for (int64_t c = 0; c < count; ++c) {
      const float sum = convolve(taps, width, block.weight, kChannelBlock, block.bias, c);
      gradient[c] = dy[c] * fast_silu_gradient(sum);
    }
  } else {
#pragma omp simd
    for (int64_t c = 0; c < count; ++c) gradient[c] = dy[c];
  }
#pragma omp simd
  for (int64_t c = 0; c < count; ++c) block.dbias[c] += gradient[c];
  for (int k = 0; k < width; ++k) {
    const float* row = taps.rows[k];
    float* dweight = block.dweight + k * kChannelBlock;
#pragma omp simd
    for (int64_t c = 0; c < count; ++c) dweight[c] += gradient[c] * row[c];
  }
  // The last tap read this token, the others those before it, whose dx has been begun.
  const float* last = block.weight + (width - 1) * kChannelBlock;
#pragma omp simd
  for (int64_t c = 0; c < count; ++c) dx[c] = gradient[c] * last[c];
  for (int64_t back = 1; back < width && back <= position; ++back) {
    const float* weight = last - back * kChannelBlock;
    float* earlier = dx - back * f.channels;
#pragma omp simd
    for (int64_t c = 0; c < count; ++c) earlier[c] += gradient[c] * weight[c];
  }
}

// All tokens for the channels [first, first + count).
MAMBIFY_INLINE void backward_block(const BackwardParams& p, int width, int64_t first,
                                   int64_t count) {
  const Params& f = p.forward;
  ChannelBlock block;
  for (int64_t c = 0; c < count; ++c) {
    if (f.bias) block.bias[c] = f.bias[first + c];
    for (int k = 0; k < width; ++k) {
      block.weight[k * kChannelBlock + c] = f.weight[(first + c) * width + k];
    }
  }
  for (int64_t d = 0; d < f.documents; ++d) {
    const int64_t start = f.starts[d], length = f.starts[d + 1] - start;
    transpose_window(f, d, first, count, block.window);
    for (int64_t position = 0; position < length; ++position) {
      const Taps taps = taps_of(f, width, start, position, first, block.window, count);
      backward_token(p, width, taps, start + position, position, first, count, block);
    }
  }
  for (int64_t c = 0; c < count; ++c) {
    if (p.dbias) p.dbias[first + c] = block.dbias[c];
    for (int k = 0; k < width; ++k) {
      p.dweight[(first + c) * width + k] = block.dweight[k * kChannelBlock + c];
    }
  }
}

MAMBIFY_CLONES void backward_channels(const BackwardParams& p, int64_t first, int64_t count) {
  if (p.forward.width == kUsualWidth && count == kChannelBlock) {
    backward_block(p, kUsualWidth, first, kChannelBlock);
  } else {
    backward_block(p, static_cast<int>(p.forward.width), first, count);
  }
}

}  // namespace

void causal_conv1d_forward_cpu(const Params& p) {
  assert(p.width >= 1 && p.width <= kMaxConvWidth);
  std::vector<float> weight(p.width * p.channels), bias(p.channels);
  for (int64_t c = 0; c < p.channels; ++c) {
    if (p.bias) bias[c] = p.bias[c];
    for (int64_t k = 0; k < p.width; ++k) weight[k * p.channels + c] = p.weight[c * p.width + k];
  }
  const int64_t tokens = p.starts[p.documents];
  const int64_t tasks = (tokens + kTokenBlock - 1) / kTokenBlock;
  const int64_t window_size = (p.width - 1) * p.channels;
  std::vector<float> windows(tasks * window_size);
  parallel_tasks(tasks, tokens * p.channels, [&](int64_t task) {
    const Range range{task * kTokenBlock, std::min((task + 1) * kTokenBlock, tokens)};
    forward_tokens(p, range, weight.data(), bias.data(), windows.data() + task * window_size);
  });
  causal_conv1d_final_window(p);
}

void causal_conv1d_backward_cpu(const BackwardParams& p) {
  const Params& f = p.forward;
  assert(f.width >= 1 && f.width <= kMaxConvWidth);
  const int64_t tasks = (f.channels + kChannelBlock - 1) / kChannelBlock;
  parallel_tasks(tasks, f.starts[f.documents] * f.channels, [&](int64_t task) {
    const int64_t first = task * kChannelBlock;
    backward_channels(p, first, std::min(kChannelBlock, f.channels - first));
  });
}

}  // namespace mambify::kernels
