#include <cmath>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/math.h"
#include "kernels/parallel.h"
#include "kernels/rms_norm/params.h"

namespace mambify::kernels {
namespace {

// Rows in [range.begin, range.end).
template <typename T>
MAMBIFY_INLINE void forward(const RmsNormParams<T>& p, Range range) {
  const int64_t groups = p.channels / p.group_size;
  const AlignedFloats products(p.z ? p.group_size : 0);
  for (int64_t row = range.begin; row < range.end; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t first = group * p.group_size, size = p.group_size;
      const T* x = p.x + row * p.x_stride + first;
      const T* z = p.z ? p.z + row * p.z_stride + first : nullptr;
      const T* weight = p.weight + first;
      T* y = p.y + row * p.channels + first;
      float* u = products.data();
      float squares = 0;
      if (z) {
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < size; ++i) {
          u[i] = to_float(x[i]) * fast_silu(to_float(z[i]));
          squares += u[i] * u[i];
        }
      } else {
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < size; ++i) squares += to_float(x[i]) * to_float(x[i]);
      }
      const float inverse_rms = 1 / std::sqrt(squares / size + p.eps);
      if (z) {
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) store(u[i] * inverse_rms * to_float(weight[i]), y[i]);
      } else {
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) {
          store(to_float(x[i]) * inverse_rms * to_float(weight[i]), y[i]);
        }
      }
      if (p.inverse_rms) p.inverse_rms[row * groups + group] = inverse_rms;
    }
  }
}

MAMBIFY_CLONES void forward_rows(const RmsNormParams<float>& p, Range range) { forward(p, range); }
MAMBIFY_CLONES void forward_rows(const RmsNormParams<Bf16>& p, Range range) { forward(p, range); }

// dweight: [channels], the part of these rows; overwritten.
MAMBIFY_CLONES void backward_rows(const RmsNormBackwardParams<float>& p, Range range,
                                  float* dweight) {
  const RmsNormParams<float>& f = p.forward;
  const int64_t groups = f.channels / f.group_size;
  std::fill(dweight, dweight + f.channels, 0.0f);
  for (int64_t row = range.begin; row < range.end; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t first = group * f.group_size, size = f.group_size;
      const float* x = f.x + row * f.x_stride + first;
      const float* z = f.z ? f.z + row * f.z_stride + first : nullptr;
      const float* weight = f.weight + first;
      const float* dy = p.dy + row * f.channels + first;
      float* dx = p.dx + row * f.channels + first;
      float* dw = dweight + first;
      const float r = f.inverse_rms[row * groups + group];
      float projection = 0;  // sum of dy weight u
      if (z) {
        float* dz = p.dz + row * f.channels + first;
#pragma omp simd reduction(+ : projection)
        for (int64_t i = 0; i < size; ++i) {
          const float u = x[i] * fast_silu(z[i]);
          projection += dy[i] * weight[i] * u;
          dw[i] += dy[i] * u * r;
        }
        const float pull = r * r * projection / size;
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) {
          const float s = fast_sigmoid(z[i]);
          const float silu = z[i] * s;
          const float du = r * (dy[i] * weight[i] - x[i] * silu * pull);
          dx[i] = du * silu;
          dz[i] = du * x[i] * s * (1 + z[i] * (1 - s));
        }
      } else {
#pragma omp simd reduction(+ : projection)
        for (int64_t i = 0; i < size; ++i) {
          projection += dy[i] * weight[i] * x[i];
          dw[i] += dy[i] * x[i] * r;
        }
        const float pull = r * r * projection / size;
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) dx[i] = r * (dy[i] * weight[i] - x[i] * pull);
      }
    }
  }
}

// A fixed division of the rows, whatever the number of threads: the sums that make up dweight are
// then always the same.
int64_t parts_of(int64_t rows) { return std::clamp<int64_t>(rows / 8, 1, 64); }

template <typename T>
void forward_in_parts(const RmsNormParams<T>& p) {
  const int64_t parts = parts_of(p.rows);
  parallel_tasks(parts, p.rows * p.channels,
                 [&](int64_t part) { forward_rows(p, part_of(p.rows, parts, part)); });
}

}  // namespace

void rms_norm_forward_cpu(const RmsNormParams<float>& p) { forward_in_parts(p); }
void rms_norm_forward_cpu(const RmsNormParams<Bf16>& p) { forward_in_parts(p); }

void rms_norm_backward_cpu(const RmsNormBackwardParams<float>& p) {
  const int64_t rows = p.forward.rows, channels = p.forward.channels;
  const int64_t parts = parts_of(rows);
  std::vector<float> dweight(parts * channels);
  parallel_tasks(parts, rows * channels, [&](int64_t part) {
    backward_rows(p, part_of(rows, parts, part), dweight.data() + part * channels);
  });
  if (!p.dweight) return;
  std::copy_n(dweight.begin(), channels, p.dweight);
  for (int64_t part = 1; part < parts; ++part) {
    for (int64_t c = 0; c < channels; ++c) p.dweight[c] += dweight[part * channels + c];
  }
}

}  // namespace mambify::kernels
