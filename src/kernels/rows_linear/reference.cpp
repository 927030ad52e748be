#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/rows_linear/params.h"

namespace mambify::kernels {

template <typename Weight, typename Value>
void rows_linear_reference(const RowsLinearParams<Weight, Value>& p) {
  for (int64_t row = 0; row < p.rows; ++row) {
    for (int64_t output = 0; output < p.outputs; ++output) {
      const Weight* panel = p.packed + output / kPanel * p.inputs * kPanel;
      const int64_t place = place_in_panel(panel, output % kPanel);
      double sum = 0;
      for (int64_t i = 0; i < p.inputs; ++i) {
        sum += static_cast<double>(to_float(p.x[row * p.x_stride + i])) *
               to_float(panel[i * kPanel + place]);
      }
      store(static_cast<float>(sum), p.y[row * p.y_stride + output]);
    }
  }
}

namespace {

struct Integers {
  int32_t q[kGroup] = {};
  float scale = 0;
};

// Up to kGroup inputs; what is missing is 0.
template <typename Value>
Integers integers_of(const Value* values, int64_t count) {
  float x[kGroup];
  std::transform(values, values + count, x, [](Value value) { return to_float(value); });
  Integers result;
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(x[i])) return {.scale = std::numeric_limits<float>::quiet_NaN()};
    largest = std::max(largest, std::abs(x[i]));
  }
  const float scale = largest / 127;
  if (scale < std::numeric_limits<float>::min()) return {};
  result.scale = scale;
  for (int64_t i = 0; i < count; ++i) {
    result.q[i] = static_cast<int32_t>(std::nearbyint(x[i] * (1 / scale)));
  }
  return result;
}

}  // namespace

template <typename Value>
void rows_linear_reference(const RowsLinearParams<Int8Group, Value>& p) {
  const int64_t groups = groups_of(p.inputs);
  for (int64_t row = 0; row < p.rows; ++row) {
    for (int64_t output = 0; output < p.outputs; ++output) {
      const Int8Group* panel = p.packed + output / kPanel * groups;
      const int64_t j = output % kPanel;
      double sum = 0;
      for (int64_t g = 0; g < groups; ++g) {
        const Integers x = integers_of(p.x + row * p.x_stride + g * kGroup,
                                       std::min(kGroup, p.inputs - g * kGroup));
        int32_t dot = 0;
        for (int64_t i = 0; i < kGroup; ++i) {
          dot += (panel[g].weights[i / 4][j][i % 4] - 128) * x.q[i];
        }
        const Bf16* scales = panel[g].scales;
        const double scale = to_float(scales[place_in_panel(scales, j)]);
        sum += dot * scale * x.scale;
      }
      store(static_cast<float>(sum), p.y[row * p.y_stride + output]);
    }
  }
}

template void rows_linear_reference(const RowsLinearParams<float>& p);
template void rows_linear_reference(const RowsLinearParams<Bf16, Bf16>& p);
template void rows_linear_reference(const RowsLinearParams<Int8Group>& p);
template void rows_linear_reference(const RowsLinearParams<Int8Group, Bf16>& p);

}  // namespace mambify::kernels
