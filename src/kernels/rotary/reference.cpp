#include "kernels/rotary/params.h"

namespace mambify::kernels {

template <typename T>
void rotary_reference(const RotaryParams<T>& p) {
  const int64_t half = p.width / 2;
  for (int64_t t = 0; t < p.tokens; ++t) {
    for (int64_t h = 0; h < p.heads; ++h) {
      const T* x = p.x + t * p.x_stride + h * p.width;
      T* y = p.y + (t * p.heads + h) * p.width;
      for (int64_t i = 0; i < half; ++i) {
        const T cos = p.cos[t * half + i];
        const T sin = p.inverse ? -p.sin[t * half + i] : p.sin[t * half + i];
        y[i] = x[i] * cos - x[i + half] * sin;
        y[i + half] = x[i + half] * cos + x[i] * sin;
      }
    }
  }
}

template void rotary_reference(const RotaryParams<float>&);
template void rotary_reference(const RotaryParams<double>&);

}  // namespace mambify::kernels
