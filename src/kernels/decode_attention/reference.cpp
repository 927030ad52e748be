#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/decode_attention/params.h"

namespace mambify::kernels {
namespace {

template <typename T>
double value_of(T x) {
  return to_float(x);
}

}  // namespace

template <typename T>
void decode_attention_reference(const DecodeAttentionParams<T>& p) {
  for (int64_t s = 0; s < p.sequences; ++s) {
    for (int64_t h = 0; h < p.heads; ++h) {
      const int64_t group = h / (p.heads / p.groups);
      const int64_t offset = p.rows[s] * p.row_stride + group * p.group_stride;
      const T* q = p.q + (s * p.heads + h) * p.width;
      std::vector<double> weights(p.lengths[s], 0.0);
      for (int64_t t = 0; t < p.lengths[s]; ++t) {
        for (int64_t i = 0; i < p.width; ++i) {
          weights[t] += p.scale * value_of(q[i]) * value_of(p.keys[offset + t * p.width + i]);
        }
      }
      const double largest = *std::max_element(weights.begin(), weights.end());
      double total = 0;
      for (double& weight : weights) total += weight = std::exp(weight - largest);
      for (int64_t i = 0; i < p.width; ++i) {
        double sum = 0;
        for (int64_t t = 0; t < p.lengths[s]; ++t) {
          sum += weights[t] / total * value_of(p.values[offset + t * p.width + i]);
        }
        store(static_cast<float>(sum), p.y[(s * p.heads + h) * p.width + i]);
      }
    }
  }
}

template void decode_attention_reference(const DecodeAttentionParams<float>&);
template void decode_attention_reference(const DecodeAttentionParams<Bf16>&);

}  // namespace mambify::kernels
