#include <algorithm>
#include <type_traits>

#include "kernels/aligned.h"
#include "kernels/parallel.h"
#include "kernels/rows_linear/grid.h"
#include "kernels/rows_linear/panel.h"

namespace mambify::kernels {
namespace {

// Inputs of which a panel's weights stay in the first-level cache while all rows pass.
template <typename Weight>
constexpr int64_t kInputBlock = (int64_t{16} << 10) /
                                (kPanel * static_cast<int64_t>(sizeof(Weight)));
template <>
constexpr int64_t kInputBlock<Grid4Group> = 2 * kGroup;
template <>
constexpr int64_t kInputBlock<Grid8Group> = 2 * kGroup;

// Asks for the memory that is multiplied soon, and the outer cache for what is a while later: with
// the first alone several rows, which take longer over each weight, fall behind the memory.
MAMBIFY_INLINE void prefetch_behind(const void* weights, size_t bytes) {
  constexpr int64_t kNear = 4096, kFar = 12288;
  for (size_t line = 0; line < bytes; line += 64) {
    const char* first = static_cast<const char*>(weights) + line;
    __builtin_prefetch(first + kNear);
    __builtin_prefetch(first + kFar, /*rw=*/0, /*locality=*/2);
  }
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

// kRows rows of x by a panel's weights of some inputs, kSpan pairs of registers at a time, on top
// of what `sums` ([kRows, kPanel]) holds unless these are the first.
template <int64_t kWidth, int64_t kRows, int64_t kSpan, typename Weight>
MAMBIFY_INLINE void multiply_tile(const Weight* panel, const float* x, int64_t x_stride,
                                  int64_t inputs, bool is_first, bool prefetches, float* sums) {
  for (int64_t first = 0; first < kPairsOfPanel<kWidth>; first += kSpan) {
    Floats<kWidth> held[kRows][kSpan][2] = {};
    const auto for_each_sum = [&](const auto& use) __attribute__((always_inline)) {
      for (int64_t row = 0; row < kRows; ++row) {
        for (int64_t pair = 0; pair < kSpan; ++pair) {
          for (int64_t k = 0; k < 2; ++k) {
            use(held[row][pair][k],
                sums + row * kPanel + place_in_pair<kWidth>(panel, first + pair, k));
          }
        }
      }
    };
    if (!is_first) {
      for_each_sum([](Floats<kWidth> & sum, const float* from)
                       __attribute__((always_inline)) { load_register<kWidth>(from, sum); });
    }
    const auto multiply = [&](int64_t i) __attribute__((always_inline)) {
      for (int64_t pair = 0; pair < kSpan; ++pair) {
        Floats<kWidth> weights[2];
        load_pair<kWidth>(panel + i * kPanel, first + pair, weights);
        for (int64_t row = 0; row < kRows; ++row) {
          const float value = x[row * x_stride + i];
          for (int64_t k = 0; k < 2; ++k) held[row][pair][k] += value * weights[k];
        }
      }
    };
    if (prefetches) {
      for (int64_t i = 0; i < inputs; ++i) {
        prefetch_behind(panel + i * kPanel + 2 * first * kWidth,
                        2 * kSpan * kWidth * sizeof(Weight));
        multiply(i);
      }
    } else {
      for (int64_t i = 0; i < inputs; ++i) multiply(i);
    }
    for_each_sum([](const Floats<kWidth>& sum, float* to)
                     __attribute__((always_inline)) { store_register<kWidth>(sum, to); });
  }
}

// As multiply_tile, for all inputs of a panel of groups, whose weights are floats in registers
// only. kSpan registers of the panel at a time: enough of them that one chain of sums does not wait
// for itself, and no more than fit.
template <int64_t kWidth, int64_t kRows, int64_t kSpan, typename Value, typename Grid>
MAMBIFY_INLINE void multiply_groups(const Grid* panel, const float* x, int64_t x_stride,
                                    int64_t groups, float* sums) {
  std::fill_n(sums, kRows * kPanel, 0.0f);
  for (int64_t g = 0; g < groups; ++g) {
    prefetch_behind(&panel[g], sizeof(Grid));
    Scales<kWidth> scales;
    load_scales<kWidth>(panel[g], scales);
    for (int64_t first = 0; first < kRegistersOfPanel<kWidth>; first += kSpan) {
      Floats<kWidth> held[kRows][kSpan];
      for (int64_t row = 0; row < kRows; ++row) {
        for (int64_t r = 0; r < kSpan; ++r) {
          load_register<kWidth>(sums + row * kPanel + (first + r) * kWidth, held[row][r]);
        }
      }
      for (int64_t word = 0; word < kWords<Grid>; ++word) {
        const float* inputs = x + g * kGroup + word * kCodes<Grid>;
        const auto multiply = [&](int64_t i, const Floats<kWidth>(&weights)[kSpan])
            __attribute__((always_inline)) {
          for (int64_t row = 0; row < kRows; ++row) {
            const float value = inputs[row * x_stride + i];
            for (int64_t r = 0; r < kSpan; ++r) held[row][r] += value * weights[r];
          }
        };
        for_each_input<kWidth, kSpan, Value>(panel[g], word, first, scales, multiply);
      }
      for (int64_t row = 0; row < kRows; ++row) {
        for (int64_t r = 0; r < kSpan; ++r) {
          store_register<kWidth>(held[row][r], sums + row * kPanel + (first + r) * kWidth);
        }
      }
    }
  }
}

// Some inputs' weights as floats. weights: [inputs, kPanel].
template <int64_t kWidth, typename Value, typename Grid>
MAMBIFY_INLINE void expand(const Grid* groups, int64_t inputs, float* weights) {
  for (int64_t begin = 0; begin < inputs; begin += kGroup) {
    const Grid& group = groups[begin / kGroup];
    prefetch_behind(&group, sizeof(Grid));
    Scales<kWidth> scales;
    load_scales<kWidth>(group, scales);
    for (int64_t word = 0; word < kWords<Grid>; ++word) {
      float* of_word = weights + (begin + word * kCodes<Grid>)*kPanel;
      for (int64_t r = 0; r < kRegistersOfPanel<kWidth>; ++r) {
        const auto keep = [&](int64_t i, const Floats<kWidth>(&floats)[1])
            __attribute__((always_inline)) {
          store_register<kWidth>(floats[0], of_word + i * kPanel + r * kWidth);
        };
        for_each_input<kWidth, 1, Value>(group, word, r, scales, keep);
      }
    }
  }
}

// body(count) with a number of rows up to kMost, known at run time only, as a constant.
template <int64_t kMost, typename Body>
MAMBIFY_INLINE void with_rows(int64_t rows, const Body& body) {
  if (rows == kMost) {
    body(std::integral_constant<int64_t, kMost>{});
  } else if constexpr (kMost > 1) {
    with_rows<kMost - 1>(rows, body);
  }
}

template <typename Weight>
const Weight* panel_at(const Weight* packed, int64_t inputs, int64_t index) {
  return packed + index * (kIsGrid<Weight> ? groups_of(inputs) : inputs * kPanel);
}

// What the registers of an instruction set are good for, of kWidth floats each.
struct Avx512 {
  static constexpr int64_t kWidth = 16;
  static constexpr int64_t kRows = 12;      // of a tile
  static constexpr int64_t kSums = 24;      // of a tile, in registers
  static constexpr int64_t kGridRows = 12;  // beside what weights on grids are made from
  static constexpr int64_t kGridSums = 10;
};
struct Avx2 {
  static constexpr int64_t kWidth = 8;
  static constexpr int64_t kRows = 6;
  static constexpr int64_t kSums = 12;
  static constexpr int64_t kGridRows = 3;
  static constexpr int64_t kGridSums = 6;
};
struct Plain {
  static constexpr int64_t kWidth = 4;
  static constexpr int64_t kRows = 1;
  static constexpr int64_t kSums = 8;
  static constexpr int64_t kGridRows = 1;
  static constexpr int64_t kGridSums = 8;
};

// How many pairs of registers of a panel a tile of so many rows fills at a time.
template <typename Set>
constexpr int64_t pairs_of_tile(int64_t rows) {
  int64_t pairs = kPairsOfPanel<Set::kWidth>;
  while (2 * pairs * rows > Set::kSums && pairs > 1) pairs /= 2;
  return pairs;
}

// Up to kMostSums rows by one panel.
template <typename Set, typename Value, typename Weight>
MAMBIFY_INLINE void multiply_rows(int64_t rows, const Weight* panel, const float* x,
                                  int64_t x_stride, int64_t inputs, float* sums) {
  constexpr int64_t kWidth = Set::kWidth, kMost = Set::kRows;
  if constexpr (kIsGrid<Weight>) {
    if (rows <= Set::kGridRows) {
      with_rows<Set::kGridRows>(
          rows, [&](auto count) __attribute__((always_inline)) {
            constexpr int64_t kSpan = 2 * count <= Set::kGridSums ? 2 : 1;
            multiply_groups<kWidth, count, kSpan, Value>(panel, x, x_stride, groups_of(inputs),
                                                         sums);
          });
      return;
    }
  }
  alignas(64) float scratch[kIsGrid<Weight> ? kInputBlock<Weight> * kPanel : 1];
  const bool passes_once =
      !kIsGrid<Weight> && rows <= kMost && pairs_of_tile<Set>(rows) == kPairsOfPanel<kWidth>;
  const int64_t block = passes_once ? inputs : kInputBlock<Weight>;
  for (int64_t begin = 0; begin < inputs; begin += block) {
    const int64_t some = std::min(block, inputs - begin);
    const auto multiply = [&](const auto* weights) __attribute__((always_inline)) {
      for (int64_t row = 0; row < rows; row += kMost) {
        with_rows<kMost>(
            std::min<int64_t>(kMost, rows - row), [&](auto count) __attribute__((always_inline)) {
              multiply_tile<kWidth, count, pairs_of_tile<Set>(count)>(
                  weights, x + row * x_stride + begin, x_stride, some,
                  /*is_first=*/begin == 0, /*prefetches=*/!kIsGrid<Weight> && row == 0,
                  sums + row * kPanel);
            });
      }
    };
    if constexpr (kIsGrid<Weight>) {
      expand<kWidth, Value>(panel + begin / kGroup, some, scratch);
      multiply(static_cast<const float*>(scratch));
    } else {
      multiply(panel + begin * kPanel);
    }
  }
}

// All rows by one panel.
template <typename Set, typename Weight, typename Value>
MAMBIFY_INLINE void multiply_panel(const RowsLinearParams<Weight, Value>& p,
                                   const FloatRows<Value>& x, int64_t index) {
  const Weight* panel = panel_at(p.packed, p.inputs, index);
  const int64_t first = index * kPanel, outputs = std::min(kPanel, p.outputs - first);
  float sums[kMostSums * kPanel];
  for (int64_t done = 0; done < p.rows; done += kMostSums) {
    const int64_t rows = std::min(kMostSums, p.rows - done);
    multiply_rows<Set, Value>(rows, panel, x[done], x.stride(), p.inputs, sums);
    for (int64_t row = 0; row < rows; ++row) {
      store_outputs(sums + row * kPanel, outputs, p.y + (done + row) * p.y_stride + first);
    }
  }
}

// One function per instruction set rather than clones of one: registers and tiles differ.
#if defined(MAMBIFY_AVX512)
template <typename Weight, typename Value>
MAMBIFY_AVX512 void panel_avx512(const RowsLinearParams<Weight, Value>& p,
                                 const FloatRows<Value>& x, int64_t index) {
  multiply_panel<Avx512>(p, x, index);
}
template <typename Weight, typename Value>
MAMBIFY_AVX2 void panel_avx2(const RowsLinearParams<Weight, Value>& p, const FloatRows<Value>& x,
                             int64_t index) {
  multiply_panel<Avx2>(p, x, index);
}
#endif
template <typename Weight, typename Value>
void panel_plain(const RowsLinearParams<Weight, Value>& p, const FloatRows<Value>& x,
                 int64_t index) {
  multiply_panel<Plain>(p, x, index);
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
