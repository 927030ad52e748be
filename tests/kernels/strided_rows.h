// What tests of rows_linear share, whatever the weights.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/bf16_values.h"
#include "kernels/rows_linear/params.h"
#include "numerics.h"

namespace mambify::kernels {

// Rows further apart than they are wide, in x and in y, with NaN in between. Who derives from this
// has p point at packed weights.
template <typename Packed, typename Value = float>
struct StridedRows {
  StridedRows(int64_t rows, int64_t inputs, int64_t outputs)
      : x(narrowed<Value>(testing::nan_values<float>(rows * (inputs + 3)))) {
    p.rows = rows;
    p.inputs = inputs;
    p.outputs = outputs;
    p.x_stride = inputs + 3;
    p.y_stride = outputs + 5;
    const auto inside = narrowed<Value>(testing::random_values<float>(rows * inputs, 2));
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(inside.begin() + r * inputs, inputs, x.begin() + r * p.x_stride);
    }
    p.x = x.data();
  }
  // p points into x.
  StridedRows(const StridedRows&) = delete;
  StridedRows& operator=(const StridedRows&) = delete;

  // [rows, outputs], and nothing written beside it.
  template <typename Run>
  std::vector<float> result(RowsLinearParams<Packed, Value> params, const Run& run) const {
    auto places = narrowed<Value>(testing::nan_values<float>(params.rows * params.y_stride));
    params.y = places.data();
    run(params);
    const std::vector<float> strided = widened(places);
    std::vector<float> y;
    for (int64_t r = 0; r < params.rows; ++r) {
      const auto row = strided.begin() + r * params.y_stride;
      y.insert(y.end(), row, row + params.outputs);
      EXPECT_TRUE(std::all_of(row + params.outputs, row + params.y_stride,
                              [](float value) { return std::isnan(value); }));
    }
    return y;
  }

  RowsLinearParams<Packed, Value> p;
  std::vector<Value> x;
};

}  // namespace mambify::kernels
