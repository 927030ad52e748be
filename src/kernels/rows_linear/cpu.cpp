#include <algorithm>
#include <utility>

#include "kernels/parallel.h"
#include "kernels/rows_linear/panel.h"

namespace mambify::kernels {
namespace {

// Inputs of which a panel's weights stay in the second-level cache while all rows pass.
template <typename Weight>
constexpr int64_t kInputBlock = (int64_t{256} << 10) /
                                (kPanel * static_cast<int64_t>(sizeof(Weight)));

// How far ahead of the multiplication weights are asked for.
constexpr int64_t kPrefetchBytes = 4096;

// kRows rows by one panel over inputs [begin, end), on top of what y holds when begin is not 0.
template <int kRows, typename Weight>
MAMBIFY_INLINE void multiply_tile(const RowsLinearParams<Weight>& p, const Weight* panel,
                                  const float* x, Range inputs, float* sums, int64_t sums_stride) {
  Lanes low[kRows], high[kRows];
  for (int r = 0; r < kRows; ++r) {
    if (inputs.begin == 0) {
      low[r] = high[r] = Lanes{};
    } else {
      load_panel(sums + r * sums_stride, low[r], high[r]);
    }
  }
  for (int64_t i = inputs.begin; i < inputs.end; ++i) {
    const Weight* weights = panel + i * kPanel;
    for (int64_t line = 0; line < kPanel * static_cast<int64_t>(sizeof(Weight)); line += 64) {
      __builtin_prefetch(reinterpret_cast<const char*>(weights) + kPrefetchBytes + line);
    }
    Lanes weight_low, weight_high;
    load_panel(weights, weight_low, weight_high);
    for (int r = 0; r < kRows; ++r) {
      const float value = x[r * p.x_stride + i];
      low[r] += value * weight_low;
      high[r] += value * weight_high;
    }
  }
  for (int r = 0; r < kRows; ++r) store_panel(low[r], high[r], sums + r * sums_stride);
}

// As multiply_tile, for a number of rows up to kMost that is known at run time only.
template <int kMost, typename Weight>
MAMBIFY_INLINE void multiply_rest(int64_t rows, const RowsLinearParams<Weight>& p,
                                  const Weight* panel, const float* x, Range inputs, float* sums,
                                  int64_t sums_stride) {
  if (rows == kMost) {
    multiply_tile<kMost>(p, panel, x, inputs, sums, sums_stride);
  } else if constexpr (kMost > 1) {
    multiply_rest<kMost - 1>(rows, p, panel, x, inputs, sums, sums_stride);
  }
}

// All rows by one panel, kMost rows at a time: as many as there are registers for.
template <int kMost, typename Weight>
MAMBIFY_INLINE void multiply_panel(const RowsLinearParams<Weight>& p, int64_t index) {
  const Weight* panel = p.packed + index * p.inputs * kPanel;
  const int64_t first = index * kPanel, outputs = std::min(kPanel, p.outputs - first);
  float narrow[kMost * kPanel];  // where the last panel is not a whole one
  for (int64_t begin = 0; begin < p.inputs; begin += kInputBlock<Weight>) {
    const Range inputs{begin, std::min(begin + kInputBlock<Weight>, p.inputs)};
    for (int64_t row = 0; row < p.rows; row += kMost) {
      const int64_t rows = std::min<int64_t>(kMost, p.rows - row);
      const float* x = p.x + row * p.x_stride;
      float* y = p.y + row * p.y_stride + first;
      if (outputs == kPanel) {
        multiply_rest<kMost>(rows, p, panel, x, inputs, y, p.y_stride);
        continue;
      }
      for (int64_t r = 0; begin > 0 && r < rows; ++r) {
        std::copy_n(y + r * p.y_stride, outputs, narrow + r * kPanel);
      }
      multiply_rest<kMost>(rows, p, panel, x, inputs, narrow, kPanel);
      for (int64_t r = 0; r < rows; ++r) {
        std::copy_n(narrow + r * kPanel, outputs, y + r * p.y_stride);
      }
    }
  }
}

// One function per instruction set rather than clones of one: the tile differs. AVX-512 has 32
// registers, of which 12 rows take 24; the others have 16, of half the width or less.
#if defined(MAMBIFY_AVX512)
template <typename Weight>
MAMBIFY_AVX512 void panel_avx512(const RowsLinearParams<Weight>& p, int64_t index) {
  multiply_panel<12>(p, index);
}
template <typename Weight>
MAMBIFY_AVX2 void panel_avx2(const RowsLinearParams<Weight>& p, int64_t index) {
  multiply_panel<3>(p, index);
}
#endif
template <typename Weight>
void panel_plain(const RowsLinearParams<Weight>& p, int64_t index) {
  multiply_panel<1>(p, index);
}

template <typename Weight>
using PanelFunction = void (*)(const RowsLinearParams<Weight>& p, int64_t index);

template <typename Weight>
PanelFunction<Weight> choose_panel_function() {
#if defined(MAMBIFY_AVX512)
  if (has_avx512()) return panel_avx512<Weight>;
  if (has_avx2()) return panel_avx2<Weight>;
#endif
  return panel_plain<Weight>;
}

}  // namespace

template <typename Weight>
void pack_cpu(const PackParams<Weight>& p) {
  parallel_tasks(panels_of(p.outputs), p.outputs * p.inputs, [&](int64_t index) {
    Weight* panel = p.packed + index * p.inputs * kPanel;
    std::fill_n(panel, p.inputs * kPanel, Weight{});
    const int64_t first = index * kPanel;
    for (int64_t j = 0; j < std::min(kPanel, p.outputs - first); ++j) {
      const Weight* row = p.weight + (first + j) * p.inputs;
      Weight* column = panel + place_in_panel(panel, j);
      for (int64_t i = 0; i < p.inputs; ++i) column[i * kPanel] = row[i];
    }
  });
}

template <typename Weight>
void rows_linear_cpu(const RowsLinearParams<Weight>& p) {
  static const PanelFunction<Weight> multiply = choose_panel_function<Weight>();
  parallel_tasks(panels_of(p.outputs), p.rows * p.inputs * p.outputs,
                 [&](int64_t index) { multiply(p, index); });
}

template void pack_cpu(const PackParams<float>& p);
template void pack_cpu(const PackParams<Bf16>& p);
template void rows_linear_cpu(const RowsLinearParams<float>& p);
template void rows_linear_cpu(const RowsLinearParams<Bf16>& p);

}  // namespace mambify::kernels
