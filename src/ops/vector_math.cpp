#include "ops/vector_math.h"

#include <ATen/ATen.h>

namespace mambify {

void resolve_vector_math() {
  // One element each, which LibTorch hands to no second thread.
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const at::Tensor x = at::full({1}, 0.5, dtype);
    for (const auto function :
         {at::acos, at::asin, at::atan, at::cos, at::erf, at::erfc, at::erfinv, at::exp, at::log,
          at::log10, at::log2, at::sin, at::sqrt, at::tan, at::tanh, at::trunc}) {
      function(x);
    }
  }
}

}  // namespace mambify
