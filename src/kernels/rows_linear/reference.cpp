#include "kernels/rows_linear/params.h"

namespace mambify::kernels {

template <typename Weight>
void rows_linear_reference(const RowsLinearParams<Weight>& p) {
  for (int64_t row = 0; row < p.rows; ++row) {
    for (int64_t output = 0; output < p.outputs; ++output) {
      const Weight* panel = p.packed + output / kPanel * p.inputs * kPanel;
      const int64_t place = place_in_panel(panel, output % kPanel);
      double sum = 0;
      for (int64_t i = 0; i < p.inputs; ++i) {
        sum += static_cast<double>(p.x[row * p.x_stride + i]) * to_float(panel[i * kPanel + place]);
      }
      p.y[row * p.y_stride + output] = static_cast<float>(sum);
    }
  }
}

template void rows_linear_reference(const RowsLinearParams<float>& p);
template void rows_linear_reference(const RowsLinearParams<Bf16>& p);

}  // namespace mambify::kernels
