#include <algorithm>
#include <type_traits>

#include "kernels/aligned.h"
#include "kernels/parallel.h"
#include "kernels/rows_linear/tiles.h"

namespace mambify::kernels {
namespace {

// Rows whose sums are kept while the inputs pass; a multiple of the rows of every tile.
constexpr int64_t kMostSums = 264;

// What is multiplied: x as it is, or a copy of one that is not of floats. Several rows that meet
// weights on grids are in blocks, [blocks, rows, kInputsOfBlock]: compilers know then where a row
// is beside another, which would take them registers.
template <typename Weight, typename Value>
class FloatRows {
 public:
  FloatRows(const Value* x, int64_t x_stride, int64_t rows, int64_t inputs)
      : is_blocked_(kIsGrid<Weight> && rows > 1),
        copy_(is_copied() ? rows * (is_blocked_ ? blocks_of(inputs) * kInputsOfBlock : inputs) : 0),
        stride_(is_blocked_   ? kInputsOfBlock
                : is_copied() ? inputs
                              : x_stride),
        block_stride_(is_blocked_ ? rows * kInputsOfBlock : kInputsOfBlock),
        first_(copy_.data()) {
    if (!is_copied()) {
      if constexpr (kIsFloat) first_ = x;
      return;
    }
    parallel_tasks(rows, rows * inputs, [&](int64_t row) {
      for (int64_t begin = 0; begin < inputs; begin += kInputsOfBlock) {
        const Value* from = x + row * x_stride + begin;
        std::transform(from, from + std::min(kInputsOfBlock, inputs - begin),
                       copy_.data() + row * stride_ + begin / kInputsOfBlock * block_stride_,
                       [](Value value) { return to_float(value); });
      }
    });
  }

  const float* operator[](int64_t row) const { return first_ + row * stride_; }
  int64_t stride() const { return stride_; }
  int64_t block_stride() const { return block_stride_; }

 private:
  static constexpr bool kIsFloat = std::is_same_v<Value, float>;

  static int64_t blocks_of(int64_t inputs) {
    return (inputs + kInputsOfBlock - 1) / kInputsOfBlock;
  }
  bool is_copied() const { return !kIsFloat || is_blocked_; }

  bool is_blocked_;
  AlignedFloats copy_;
  int64_t stride_, block_stride_;
  const float* first_;
};

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

// What the registers of an instruction set are good for, of kWidth floats each. Innermost loops run
// `apart`, in functions of their own: in one that holds them all, compilers keep what is needed
// outside a loop in registers and its sums in memory.
struct Avx512 {
  static constexpr int64_t kWidth = 16;
  static constexpr int64_t kRows = 12;  // of a tile
  static constexpr int64_t kSums = 24;  // of a tile, in registers
  // Of a tile of weights on grids: its rows, and registers for its sums and the groups' bases.
  template <typename Value>
  static constexpr int64_t kGridRows = 12;
  template <typename Value>
  static constexpr int64_t kGridRegisters = 12;
#if defined(MAMBIFY_AVX512)
  template <typename Body>
  MAMBIFY_AVX512 __attribute__((noinline)) static void apart(const Body& body) {
    body();
  }
#endif
};
struct Avx2 {
  static constexpr int64_t kWidth = 8;
  static constexpr int64_t kRows = 6;
  static constexpr int64_t kSums = 12;
  template <typename Value>
  static constexpr int64_t kGridRows = std::is_same_v<Value, float> ? 9 : 4;
  template <typename Value>
  static constexpr int64_t kGridRegisters = std::is_same_v<Value, float> ? 14 : 12;
#if defined(MAMBIFY_AVX512)
  template <typename Body>
  MAMBIFY_AVX2 __attribute__((noinline)) static void apart(const Body& body) {
    body();
  }
#endif
};
struct Plain {
  static constexpr int64_t kWidth = 4;
  static constexpr int64_t kRows = 1;
  static constexpr int64_t kSums = 8;
  template <typename Value>
  static constexpr int64_t kGridRows = 1;
  template <typename Value>
  static constexpr int64_t kGridRegisters = 12;
  template <typename Body>
  static void apart(const Body& body) {
    body();
  }
};

// How many pairs of registers of a panel a tile of so many rows fills at a time.
template <typename Set>
constexpr int64_t pairs_of_tile(int64_t rows) {
  int64_t pairs = kPairsOfPanel<Set::kWidth>;
  while (2 * pairs * rows > Set::kSums && pairs > 1) pairs /= 2;
  return pairs;
}

// How many registers of a panel a tile of weights on grids fills: enough that one chain of sums
// does not wait for itself, and no more than fit with their bases.
template <typename Set, typename Value>
constexpr int64_t span_of_groups(int64_t rows) {
  int64_t span = kRegistersOfPanel<Set::kWidth>;
  while (span * (rows + 1) > Set::template kGridRegisters<Value> && span > 1) span /= 2;
  return span;
}

// Up to kMostSums rows by one panel.
template <typename Set, typename Value, typename Weight>
MAMBIFY_INLINE void multiply_rows(int64_t rows, const Weight* panel, const float* x,
                                  int64_t x_stride, int64_t block_stride, int64_t inputs,
                                  float* sums) {
  constexpr int64_t kWidth = Set::kWidth, kMost = Set::kRows;
  if constexpr (kIsGrid<Weight>) {
    if (rows <= Set::template kGridRows<Value>) {
      with_rows<Set::template kGridRows<Value>>(
          rows, [&](auto count) __attribute__((always_inline)) {
            Set::apart([&]() __attribute__((always_inline)) {
              multiply_groups<kWidth, count, span_of_groups<Set, Value>(count), Value>(
                  panel, x, block_stride, groups_of(inputs), sums);
            });
          });
      return;
    }
  }
  alignas(64) float scratch[kIsGrid<Weight> ? kInputsOfBlock * kPanel : 1];
  const bool is_tile = rows <= kMost;
  int64_t block = kInputsOfBlock;
  Prefetch prefetch = Prefetch::none;
  if constexpr (!kIsGrid<Weight>) {
    const bool passes_once = is_tile && pairs_of_tile<Set>(rows) == kPairsOfPanel<kWidth>;
    block = passes_once ? inputs : inputs_of<Weight>(is_tile ? kBlockOfTile : kBlockOfMany);
    prefetch = is_tile ? Prefetch::in_order : Prefetch::in_place;
  }
  for (int64_t begin = 0; begin < inputs; begin += block) {
    const int64_t some = std::min(block, inputs - begin);
    const float* from = x + (kIsGrid<Weight> ? begin / kInputsOfBlock * block_stride : begin);
    const auto multiply = [&](const auto* weights) __attribute__((always_inline)) {
      for (int64_t row = 0; row < rows; row += kMost) {
        with_rows<kMost>(
            std::min<int64_t>(kMost, rows - row), [&](auto count) __attribute__((always_inline)) {
              Set::apart([&]() __attribute__((always_inline)) {
                multiply_tile<kWidth, count, pairs_of_tile<Set>(count)>(
                    weights, from + row * x_stride, kIsGrid<Weight> ? kInputsOfBlock : x_stride,
                    some,
                    /*is_first=*/begin == 0, row == 0 ? prefetch : Prefetch::none,
                    sums + row * kPanel);
              });
            });
      }
    };
    if constexpr (kIsGrid<Weight>) {
      Set::apart([&]() __attribute__((always_inline)) {
        expand<kWidth, Value>(panel + begin / kGroup, some, scratch);
      });
      multiply(static_cast<const float*>(scratch));
    } else {
      multiply(panel + begin * kPanel);
    }
  }
}

// All rows by one panel.
template <typename Set, typename Weight, typename Value>
MAMBIFY_INLINE void multiply_panel(const RowsLinearParams<Weight, Value>& p,
                                   const FloatRows<Weight, Value>& x, int64_t index) {
  const Weight* panel = panel_at(p.packed, p.inputs, index);
  const int64_t first = index * kPanel, outputs = std::min(kPanel, p.outputs - first);
  float sums[kMostSums * kPanel];
  for (int64_t done = 0; done < p.rows; done += kMostSums) {
    const int64_t rows = std::min(kMostSums, p.rows - done);
    multiply_rows<Set, Value>(rows, panel, x[done], x.stride(), x.block_stride(), p.inputs, sums);
    for (int64_t row = 0; row < rows; ++row) {
      store_outputs(sums + row * kPanel, outputs, p.y + (done + row) * p.y_stride + first);
    }
  }
}

// One function per instruction set rather than clones of one: registers and tiles differ.
#if defined(MAMBIFY_AVX512)
template <typename Weight, typename Value>
MAMBIFY_AVX512 void panel_avx512(const RowsLinearParams<Weight, Value>& p,
                                 const FloatRows<Weight, Value>& x, int64_t index) {
  multiply_panel<Avx512>(p, x, index);
}
template <typename Weight, typename Value>
MAMBIFY_AVX2 void panel_avx2(const RowsLinearParams<Weight, Value>& p,
                             const FloatRows<Weight, Value>& x, int64_t index) {
  multiply_panel<Avx2>(p, x, index);
}
#endif
template <typename Weight, typename Value>
void panel_plain(const RowsLinearParams<Weight, Value>& p, const FloatRows<Weight, Value>& x,
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
  const FloatRows<Weight, Value> x(p.x, p.x_stride, p.rows, p.inputs);
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
