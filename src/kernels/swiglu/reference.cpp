#include <cmath>

#include "kernels/swiglu/params.h"

namespace mambify::kernels {

template <typename T>
void swiglu_forward_reference(const SwiGluParams<T>& p) {
  for (int64_t i = 0; i < p.count; ++i) {
    p.y[i] = p.gate[i] / (1 + std::exp(-p.gate[i])) * p.up[i];
  }
}

template <typename T>
void swiglu_backward_reference(const SwiGluBackwardParams<T>& p) {
  for (int64_t i = 0; i < p.forward.count; ++i) {
    const T gate = p.forward.gate[i], s = 1 / (1 + std::exp(-gate));
    p.dup[i] = p.dy[i] * gate * s;
    p.dgate[i] = p.dy[i] * p.forward.up[i] * s * (1 + gate * (1 - s));
  }
}

template void swiglu_forward_reference(const SwiGluParams<float>&);
template void swiglu_forward_reference(const SwiGluParams<double>&);
template void swiglu_backward_reference(const SwiGluBackwardParams<float>&);
template void swiglu_backward_reference(const SwiGluBackwardParams<double>&);

}  // namespace mambify::kernels
