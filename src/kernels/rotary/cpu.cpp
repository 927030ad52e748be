#include "kernels/parallel.h"
#include "kernels/rotary/params.h"
#include "kernels/simd.h"

namespace mambify::kernels {
namespace {

// One head of one token; every head of every token takes this loop from its beginning, so that an
// element is always in the same lane of it.
template <typename T>
MAMBIFY_INLINE void rotate_head(const T* __restrict x, const float* __restrict cos,
                                const float* __restrict sin, float sign, int64_t half,
                                T* __restrict y) {
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const float turned = sign * sin[i], first = to_float(x[i]), second = to_float(x[i + half]);
    store(first * cos[i] - second * turned, y[i]);
    store(second * cos[i] + first * turned, y[i + half]);
  }
}

template <typename T>
MAMBIFY_INLINE void rotate(const RotaryParams<T>& p, int64_t t) {
  const int64_t half = p.width / 2;
  const float sign = p.inverse ? -1.0f : 1.0f;
  for (int64_t h = 0; h < p.heads; ++h) {
    rotate_head(p.x + t * p.x_stride + h * p.width, p.cos + t * half, p.sin + t * half, sign, half,
                p.y + (t * p.heads + h) * p.width);
  }
}

MAMBIFY_CLONES void rotate_token(const RotaryParams<float>& p, int64_t t) { rotate(p, t); }
MAMBIFY_CLONES void rotate_token(const RotaryParams<Bf16>& p, int64_t t) { rotate(p, t); }

template <typename T>
void rotate_tokens(const RotaryParams<T>& p) {
  parallel_tasks(p.tokens, p.tokens * p.heads * p.width, [&](int64_t t) { rotate_token(p, t); });
}

}  // namespace

void rotary_cpu(const RotaryParams<float>& p) { rotate_tokens(p); }
void rotary_cpu(const RotaryParams<Bf16>& p) { rotate_tokens(p); }

}  // namespace mambify::kernels
