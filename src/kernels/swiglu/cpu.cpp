#include <algorithm>

#include "kernels/lanes.h"
#include "kernels/math.h"
#include "kernels/parallel.h"
#include "kernels/swiglu/params.h"

namespace mambify::kernels {
namespace {

constexpr int64_t kBlock = 8192;  // elements of one task

template <typename T>
MAMBIFY_INLINE void forward_lanes(const T* gate, const T* up, T* y) {
#pragma omp simd
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    store(fast_silu(to_float(gate[lane])) * to_float(up[lane]), y[lane]);
  }
}

// In whole groups of lanes, the last one padded: an element's bits must not depend on how many
// there are, and a loop's scalar rest may round in another way than its vectors.
template <typename T>
MAMBIFY_INLINE void forward(const SwiGluParams<T>& p, Range range) {
  int64_t i = range.begin;
  for (; i + kLanes <= range.end; i += kLanes) forward_lanes(p.gate + i, p.up + i, p.y + i);
  if (i == range.end) return;
  T gate[kLanes] = {}, up[kLanes] = {}, y[kLanes];
  std::copy(p.gate + i, p.gate + range.end, gate);
  std::copy(p.up + i, p.up + range.end, up);
  forward_lanes(gate, up, y);
  std::copy_n(y, range.end - i, p.y + i);
}

MAMBIFY_CLONES void forward_range(const SwiGluParams<float>& p, Range range) { forward(p, range); }
MAMBIFY_CLONES void forward_range(const SwiGluParams<Bf16>& p, Range range) { forward(p, range); }

MAMBIFY_CLONES void backward_range(const SwiGluBackwardParams<float>& p, Range range) {
  const float *gate = p.forward.gate, *up = p.forward.up;
#pragma omp simd
  for (int64_t i = range.begin; i < range.end; ++i) {
    const float s = fast_sigmoid(gate[i]);
    p.dup[i] = p.dy[i] * gate[i] * s;
    p.dgate[i] = p.dy[i] * up[i] * s * (1 + gate[i] * (1 - s));
  }
}

template <typename Body>
void parallel_blocks(int64_t count, const Body& body) {
  parallel_tasks((count + kBlock - 1) / kBlock, count, [&](int64_t task) {
    body(Range{task * kBlock, std::min((task + 1) * kBlock, count)});
  });
}

}  // namespace

void swiglu_forward_cpu(const SwiGluParams<float>& p) {
  parallel_blocks(p.count, [&](Range range) { forward_range(p, range); });
}
void swiglu_forward_cpu(const SwiGluParams<Bf16>& p) {
  parallel_blocks(p.count, [&](Range range) { forward_range(p, range); });
}

void swiglu_backward_cpu(const SwiGluBackwardParams<float>& p) {
  parallel_blocks(p.forward.count, [&](Range range) { backward_range(p, range); });
}

}  // namespace mambify::kernels
