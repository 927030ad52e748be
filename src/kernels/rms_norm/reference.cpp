#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/rms_norm/params.h"

namespace mambify::kernels {
namespace {

template <typename T>
T sigmoid(T x) {
  return 1 / (1 + std::exp(-x));
}

}  // namespace

template <typename T>
void rms_norm_forward_reference(const RmsNormParams<T>& p) {
  const int64_t groups = p.channels / p.group_size;
  std::vector<T> u(p.group_size);
  for (int64_t row = 0; row < p.rows; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t first = group * p.group_size;
      T squares = 0;
      for (int64_t i = 0; i < p.group_size; ++i) {
        u[i] = p.x[row * p.x_stride + first + i];
        if (p.z) {
          const T z = p.z[row * p.z_stride + first + i];
          u[i] *= z * sigmoid(z);
        }
        squares += u[i] * u[i];
      }
      const T inverse_rms = 1 / std::sqrt(squares / p.group_size + p.eps);
      for (int64_t i = 0; i < p.group_size; ++i) {
        p.y[row * p.channels + first + i] = u[i] * inverse_rms * p.weight[first + i];
      }
      if (p.inverse_rms) p.inverse_rms[row * groups + group] = inverse_rms;
    }
  }
}

// With r = inverse_rms and g = dy * weight:
//   du = r (g - u r^2 mean(g u)),  dweight = sum over rows of dy u r,
//   dx = du silu(z),  dz = du x silu'(z).
template <typename T>
void rms_norm_backward_reference(const RmsNormBackwardParams<T>& p) {
  const RmsNormParams<T>& f = p.forward;
  const int64_t groups = f.channels / f.group_size;
  std::vector<T> dweight(f.channels, 0);
  for (int64_t row = 0; row < f.rows; ++row) {
    const T* x = f.x + row * f.x_stride;
    const T* z = f.z ? f.z + row * f.z_stride : nullptr;
    const T* dy = p.dy + row * f.channels;
    const auto u = [&](int64_t c) { return z ? x[c] * z[c] * sigmoid(z[c]) : x[c]; };
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t first = group * f.group_size, last = first + f.group_size;
      const T r = f.inverse_rms[row * groups + group];
      T projection = 0;  // mean(g u)
      for (int64_t c = first; c < last; ++c) projection += dy[c] * f.weight[c] * u(c);
      projection /= f.group_size;
      for (int64_t c = first; c < last; ++c) {
        const T du = r * (dy[c] * f.weight[c] - u(c) * r * r * projection);
        dweight[c] += dy[c] * u(c) * r;
        if (z) {
          const T s = sigmoid(z[c]);
          p.dx[row * f.channels + c] = du * z[c] * s;
          p.dz[row * f.channels + c] = du * x[c] * s * (1 + z[c] * (1 - s));
        } else {
          p.dx[row * f.channels + c] = du;
        }
      }
    }
  }
  if (p.dweight) std::copy(dweight.begin(), dweight.end(), p.dweight);
}

template void rms_norm_forward_reference(const RmsNormParams<float>&);
template void rms_norm_forward_reference(const RmsNormParams<double>&);
template void rms_norm_backward_reference(const RmsNormBackwardParams<float>&);
template void rms_norm_backward_reference(const RmsNormBackwardParams<double>&);

}  // namespace mambify::kernels
