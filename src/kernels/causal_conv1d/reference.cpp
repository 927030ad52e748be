#include <algorithm>
#include <cmath>

#include "kernels/causal_conv1d/params.h"

namespace mambify::kernels {
namespace {

template <typename T>
T sigmoid(T x) {
  return 1 / (1 + std::exp(-x));
}

// Input of `document` at `position` from its start; negative positions lie in the initial window.
template <typename T>
T input_at(const CausalConv1dParams<T>& p, int64_t document, int64_t position, int64_t channel) {
  if (position >= 0) return p.x[(p.starts[document] + position) * p.x_stride + channel];
  if (!p.initial_window) return 0;
  const int64_t columns = p.width - 1;
  return p.initial_window[(document * p.channels + channel) * columns + columns + position];
}

// The convolution before its activation.
template <typename T>
T convolve(const CausalConv1dParams<T>& p, int64_t document, int64_t position, int64_t channel) {
  T sum = p.bias ? p.bias[channel] : 0;
  for (int64_t k = 0; k < p.width; ++k) {
    sum += p.weight[channel * p.width + k] *
           input_at(p, document, position - (p.width - 1) + k, channel);
  }
  return sum;
}

}  // namespace

template <typename T>
void causal_conv1d_forward_reference(const CausalConv1dParams<T>& p) {
  for (int64_t d = 0; d < p.documents; ++d) {
    for (int64_t t = 0; t < p.starts[d + 1] - p.starts[d]; ++t) {
      for (int64_t c = 0; c < p.channels; ++c) {
        const T sum = convolve(p, d, t, c);
        p.y[(p.starts[d] + t) * p.y_stride + c] = p.silu ? sum * sigmoid(sum) : sum;
      }
    }
  }
  causal_conv1d_final_window(p);
}

template <typename T>
void causal_conv1d_backward_reference(const CausalConv1dBackwardParams<T>& p) {
  const CausalConv1dParams<T>& f = p.forward;
  std::fill(p.dx, p.dx + f.starts[f.documents] * f.channels, T(0));
  std::fill(p.dweight, p.dweight + f.channels * f.width, T(0));
  if (p.dbias) std::fill(p.dbias, p.dbias + f.channels, T(0));
  for (int64_t d = 0; d < f.documents; ++d) {
    for (int64_t t = 0; t < f.starts[d + 1] - f.starts[d]; ++t) {
      for (int64_t c = 0; c < f.channels; ++c) {
        T gradient = p.dy[(f.starts[d] + t) * f.channels + c];
        if (f.silu) {
          const T sum = convolve(f, d, t, c), s = sigmoid(sum);
          gradient *= s * (1 + sum * (1 - s));
        }
        if (p.dbias) p.dbias[c] += gradient;
        for (int64_t k = 0; k < f.width; ++k) {
          const int64_t source = t - (f.width - 1) + k;
          p.dweight[c * f.width + k] += gradient * input_at(f, d, source, c);
          if (source >= 0) {
            p.dx[(f.starts[d] + source) * f.channels + c] += gradient * f.weight[c * f.width + k];
          }
        }
      }
    }
  }
}

template <typename T>
void causal_conv1d_final_window(const CausalConv1dParams<T>& p) {
  if (!p.final_window) return;
  const int64_t columns = p.width - 1;
  for (int64_t d = 0; d < p.documents; ++d) {
    const int64_t length = p.commits ? p.commits[d] : p.starts[d + 1] - p.starts[d];
    for (int64_t c = 0; c < p.channels; ++c) {
      // Ascending, so that in place no column is overwritten before it is read.
      for (int64_t column = 0; column < columns; ++column) {
        p.final_window[(d * p.channels + c) * columns + column] =
            input_at(p, d, length - columns + column, c);
      }
    }
  }
}

template void causal_conv1d_forward_reference(const CausalConv1dParams<float>&);
template void causal_conv1d_forward_reference(const CausalConv1dParams<double>&);
template void causal_conv1d_backward_reference(const CausalConv1dBackwardParams<float>&);
template void causal_conv1d_backward_reference(const CausalConv1dBackwardParams<double>&);
template void causal_conv1d_final_window(const CausalConv1dParams<float>&);
template void causal_conv1d_final_window(const CausalConv1dParams<double>&);

}  // namespace mambify::kernels
