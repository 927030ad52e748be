#include <algorithm>
#include <type_traits>

#include "kernels/aligned.h"
#include "kernels/parallel.h"
#include "kernels/rows_linear/grid.h"
#include "kernels/rows_linear/panel.h"

namespace mambify::kernels {
namespace {

// Inputs of which a panel's weights stay in a cache while all rows pass: the second-level one, the
// first-level one where they are made floats for it.
template <typename Weight>
constexpr int64_t kInputBlock = (int64_t{256} << 10) /
                                (kPanel * static_cast<int64_t>(sizeof(Weight)));
template <>
constexpr int64_t kInputBlock<Grid4Group> = 2 * kGroup;
template <>
constexpr int64_t kInputBlock<Grid8Group> = 2 * kGroup;

// Asks for the memory that is multiplied soon, and the outer cache for what is a while later: with
// the first alone several rows, which take longer over each weight, fall behind the memory.
MAMBIFY_INLINE void prefetch_behind(const void* weights) {
  constexpr int64_t kNear = 4096, kFar = 12288;
  __builtin_prefetch(static_cast<const char*>(weights) + kNear);
  __builtin_prefetch(static_cast<const char*>(weights) + kFar, /*rw=*/0, /*locality=*/2);
}

template <typename Group>
MAMBIFY_INLINE void prefetch_group_behind(const Group& group) {
  const auto* bytes = reinterpret_cast<const char*>(&group);
  for (size_t line = 0; line < sizeof(Group); line += 64) prefetch_behind(bytes + line);
}

// Rows whose sums are kept while the inputs pass; a multiple of the rows of every tile.
constexpr int64_t kMostSums = 264;

// What is multiplied: x as it is, or a copy of one that is not of floats.
template <typename Value>
class FloatRows {
 public:
  FloatRows(const Value* x, int64_t x_stride, int64_t rows, int64_t inputs)
      : copy_(kIsFloat ? 0 : rows * inputs), stride_(kIsFloat ? x_stride : inputs) {
    if constexpr (kIsFloat) {
      first_ = x;
    } else {
      first_ = copy_.data();
      parallel_tasks(rows, rows * inputs, [&](int64_t row) {
        std::transform(x + row * x_stride, x + row * x_stride + inputs, copy_.data() + row * inputs,
                       [](Value value) { return to_float(value); });
      });
    }
  }

  const float* operator[](int64_t row) const { return first_ + row * stride_; }
  int64_t stride() const { return stride_; }

 private:
  static constexpr bool kIsFloat = std::is_same_v<Value, float>;
  AlignedFloats copy_;
  int64_t stride_;
  const float* first_;
};

// kRows rows of x by a panel's weights of some inputs, on top of what `sums` ([kRows, kPanel])
// holds unless these are the first.
template <int kRows, bool kPrefetch, typename Weight>
MAMBIFY_INLINE void multiply_tile(const Weight* panel, const float* x, int64_t x_stride,
                                  int64_t inputs, bool is_first, float* sums) {
  Lanes low[kRows], high[kRows];
  for (int r = 0; r < kRows; ++r) {
    if (is_first) {
      low[r] = high[r] = Lanes{};
    } else {
      load_panel(sums + r * kPanel, low[r], high[r]);
    }
  }
  for (int64_t i = 0; i < inputs; ++i) {
    const Weight* weights = panel + i * kPanel;
    if constexpr (kPrefetch) {
      for (int64_t line = 0; line < kPanel * static_cast<int64_t>(sizeof(Weight)); line += 64) {
        prefetch_behind(reinterpret_cast<const char*>(weights) + line);
      }
    }
    Lanes weight_low, weight_high;
    load_panel(weights, weight_low, weight_high);
    for (int r = 0; r < kRows; ++r) {
      const float value = x[r * x_stride + i];
      low[r] += value * weight_low;
      high[r] += value * weight_high;
    }
  }
  for (int r = 0; r < kRows; ++r) store_panel(low[r], high[r], sums + r * kPanel);
}

// As multiply_tile, for all inputs of a panel of groups, whose weights are floats in registers
// only.
template <int kRows, typename Value, typename Grid>
MAMBIFY_INLINE void multiply_groups(const Grid* panel, const float* x, int64_t x_stride,
                                    int64_t groups, float* sums) {
  Lanes low[kRows], high[kRows];
  for (int r = 0; r < kRows; ++r) low[r] = high[r] = Lanes{};
  for (int64_t g = 0; g < groups; ++g) {
    prefetch_group_behind(panel[g]);
    const auto multiply = [&](int64_t i, const Lanes& weight_low, const Lanes& weight_high)
        __attribute__((always_inline)) {
      for (int r = 0; r < kRows; ++r) {
        const float value = x[r * x_stride + g * kGroup + i];
        low[r] += value * weight_low;
        high[r] += value * weight_high;
      }
    };
    for_each_input<Value>(panel[g], multiply);
  }
  for (int r = 0; r < kRows; ++r) store_panel(low[r], high[r], sums + r * kPanel);
}

// Some inputs' weights as floats. weights: [inputs, kPanel].
template <typename Value, typename Grid>
MAMBIFY_INLINE void expand(const Grid* groups, int64_t inputs, float* weights) {
  for (int64_t begin = 0; begin < inputs; begin += kGroup) {
    prefetch_group_behind(groups[begin / kGroup]);
    const auto keep = [&](int64_t i, const Lanes& low, const Lanes& high)
        __attribute__((always_inline)) {
      store_panel(low, high, weights + (begin + i) * kPanel);
    };
    for_each_input<Value>(groups[begin / kGroup], keep);
  }
}

// body(count) with a number of rows up to kMost, known at run time only, as a constant.
template <int kMost, typename Body>
MAMBIFY_INLINE void with_rows(int64_t rows, const Body& body) {
  if (rows == kMost) {
    body(std::integral_constant<int, kMost>{});
  } else if constexpr (kMost > 1) {
    with_rows<kMost - 1>(rows, body);
  }
}

template <typename Weight>
const Weight* panel_at(const Weight* packed, int64_t inputs, int64_t index) {
  return packed + index * (kIsGrid<Weight> ? groups_of(inputs) : inputs * kPanel);
}

// Up to kMostSums rows by one panel, kMost rows at a time: as many as there are registers for.
template <int kMost, typename Value, typename Weight>
MAMBIFY_INLINE void multiply_rows(int64_t rows, const Weight* panel, const float* x,
                                  int64_t x_stride, int64_t inputs, float* sums) {
  if constexpr (kIsGrid<Weight>) {
    if (rows <= kMost) {
      with_rows<kMost>(
          rows, [&](auto count) __attribute__((always_inline)) {
            multiply_groups<count, Value>(panel, x, x_stride, groups_of(inputs), sums);
          });
      return;
    }
  }
  alignas(64) float scratch[kIsGrid<Weight> ? kInputBlock<Weight> * kPanel : 1];
  for (int64_t begin = 0; begin < inputs; begin += kInputBlock<Weight>) {
    const int64_t some = std::min(kInputBlock<Weight>, inputs - begin);
    const auto multiply = [&](const auto* weights) __attribute__((always_inline)) {
      for (int64_t row = 0; row < rows; row += kMost) {
        with_rows<kMost>(
            std::min<int64_t>(kMost, rows - row), [&](auto count) __attribute__((always_inline)) {
              multiply_tile<count, !kIsGrid<Weight>>(weights, x + row * x_stride + begin, x_stride,
                                                     some,
                                                     /*is_first=*/begin == 0, sums + row * kPanel);
            });
      }
    };
    if constexpr (kIsGrid<Weight>) {
      expand<Value>(panel + begin / kGroup, some, scratch);
      multiply(static_cast<const float*>(scratch));
    } else {
      multiply(panel + begin * kPanel);
    }
  }
}

// All rows by one panel.
template <int kMost, typename Weight, typename Value>
MAMBIFY_INLINE void multiply_panel(const RowsLinearParams<Weight, Value>& p,
                                   const FloatRows<Value>& x, int64_t index) {
  const Weight* panel = panel_at(p.packed, p.inputs, index);
  const int64_t first = index * kPanel, outputs = std::min(kPanel, p.outputs - first);
  float sums[kMostSums * kPanel];
  for (int64_t done = 0; done < p.rows; done += kMostSums) {
    const int64_t rows = std::min(kMostSums, p.rows - done);
    multiply_rows<kMost, Value>(rows, panel, x[done], x.stride(), p.inputs, sums);
    for (int64_t row = 0; row < rows; ++row) {
      store_outputs(sums + row * kPanel, outputs, p.y + (done + row) * p.y_stride + first);
    }
  }
}

// One function per instruction set rather than clones of one: the tile differs. AVX-512 has 32
// registers, of which 12 rows take 24; the others have 16, of half the width or less.
#if defined(MAMBIFY_AVX512)
template <typename Weight, typename Value>
MAMBIFY_AVX512 void panel_avx512(const RowsLinearParams<Weight, Value>& p,
                                 const FloatRows<Value>& x, int64_t index) {
  multiply_panel<12>(p, x, index);
}
template <typename Weight, typename Value>
MAMBIFY_AVX2 void panel_avx2(const RowsLinearParams<Weight, Value>& p, const FloatRows<Value>& x,
                             int64_t index) {
  multiply_panel<3>(p, x, index);
}
#endif
template <typename Weight, typename Value>
void panel_plain(const RowsLinearParams<Weight, Value>& p, const FloatRows<Value>& x,
                 int64_t index) {
  multiply_panel<1>(p, x, index);
}

template <typename Weight, typename Value>
auto choose_panel_function() {
#if defined(MAMBIFY_AVX512)
  if (has_avx512()) return panel_avx512<Weight, Value>;
  if (has_avx2()) return panel_avx2<Weight, Value>;
#endif
  return panel_plain<Weight, Value>;
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

template <typename Weight, typename Value>
void rows_linear_cpu(const RowsLinearParams<Weight, Value>& p) {
  static const auto multiply = choose_panel_function<Weight, Value>();
  const FloatRows<Value> x(p.x, p.x_stride, p.rows, p.inputs);
  parallel_tasks(panels_of(p.outputs), p.rows * p.inputs * p.outputs,
                 [&](int64_t index) { multiply(p, x, index); });
}

template void pack_cpu(const PackParams<float>& p);
template void pack_cpu(const PackParams<Bf16>& p);
template void rows_linear_cpu(const RowsLinearParams<float>& p);
template void rows_linear_cpu(const RowsLinearParams<Bf16, Bf16>& p);
template void rows_linear_cpu(const RowsLinearParams<Grid4Group>& p);
template void rows_linear_cpu(const RowsLinearParams<Grid4Group, Bf16>& p);
template void rows_linear_cpu(const RowsLinearParams<Grid8Group>& p);
template void rows_linear_cpu(const RowsLinearParams<Grid8Group, Bf16>& p);

}  // namespace mambify::kernels
