// A few rows by a panel's weights, with sums in registers.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/rows_linear/grid.h"
#include "kernels/rows_linear/panel.h"
#include "kernels/rows_linear/params.h"

namespace mambify::kernels {

// Inputs of which a panel's weights are so many bytes.
template <typename Weight>
constexpr int64_t inputs_of(int64_t bytes) {
  return bytes / (kPanel * static_cast<int64_t>(sizeof(Weight)));
}

// Weights that stay in the first-level cache while many rows pass, or while the parts of one tile
// do, in bytes. Those of grids are floats by then.
inline constexpr int64_t kBlockOfMany = 16 << 10, kBlockOfTile = 4096, kBlockOfGrid = 8192;

// Inputs and groups of a block of weights on grids.
inline constexpr int64_t kInputsOfBlock = inputs_of<float>(kBlockOfGrid);
inline constexpr int64_t kGroupsOfBlock = kInputsOfBlock / kGroup;

// Asks for the memory that is multiplied soon, and the outer cache for what is a while later: with
// the first alone several rows, which take longer over each weight, fall behind the memory.
MAMBIFY_INLINE void prefetch_behind(const void* weights, int64_t bytes) {
  constexpr int64_t kNear = kBlockOfTile, kFar = 12288;
  for (int64_t line = 0; line < bytes; line += 64) {
    const char* first = static_cast<const char*>(weights) + line;
    __builtin_prefetch(first + kNear);
    __builtin_prefetch(first + kFar, /*rw=*/0, /*locality=*/2);
  }
}

// Whether a tile asks for the memory behind its weights: where it reads them, or in the order of
// memory, for blocks of kBlockOfTile, all of which a tile needs before it comes to the next.
enum class Prefetch { none, in_place, in_order };

// kRows rows of x by a panel's weights of some inputs, kSpan pairs of registers at a time, on top
// of what `sums` ([kRows, kPanel]) holds unless these are the first.
template <int64_t kWidth, int64_t kRows, int64_t kSpan, typename Weight>
MAMBIFY_INLINE void multiply_tile(const Weight* panel, const float* x, int64_t x_stride,
                                  int64_t inputs, bool is_first, Prefetch prefetch, float* sums) {
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
    if (prefetch == Prefetch::none) {
      for (int64_t i = 0; i < inputs; ++i) multiply(i);
    } else {
      constexpr int64_t kPart = 2 * kSpan * kWidth;
      const bool in_order = prefetch == Prefetch::in_order;
      const Weight* part = panel + (in_order ? first / kSpan * inputs : first / kSpan) * kPart;
      const int64_t next = in_order ? kPart : kPanel;
      for (int64_t i = 0; i < inputs; ++i) {
        prefetch_behind(part + i * next, kPart * static_cast<int64_t>(sizeof(Weight)));
        multiply(i);
      }
    }
    for_each_sum([](const Floats<kWidth>& sum, float* to)
                     __attribute__((always_inline)) { store_register<kWidth>(sum, to); });
  }
}

// As multiply_tile, for all inputs of a panel of groups, whose weights are floats in registers
// only. x: blocks of [kRows, kInputsOfBlock], block_stride apart. kSpan registers of the panel at a
// time, all of them for one block after the other, so that memory is read at an even pace; where
// that is the whole panel, sums stay in registers.
template <int64_t kWidth, int64_t kRows, int64_t kSpan, typename Value, typename Grid>
MAMBIFY_INLINE void multiply_groups(const Grid* panel, const float* x, int64_t block_stride,
                                    int64_t groups, float* sums) {
  constexpr bool kStay = kSpan == kRegistersOfPanel<kWidth>;
  // Fewer places where a group's steps, which are made anew for each span, serve fewer weights.
  constexpr int64_t kMostPlaces = kCodes<Grid> - 1, kFewPlaces = 4;
  constexpr int64_t kPlaces = kStay ? kMostPlaces : std::min(kMostPlaces, kFewPlaces);
  Floats<kWidth> held[kRows][kSpan] = {};
  const auto for_each_sum = [&](int64_t first, const auto& use) __attribute__((always_inline)) {
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t r = 0; r < kSpan; ++r) {
        use(held[row][r], sums + row * kPanel + (first + r) * kWidth);
      }
    }
  };
  const auto load = [](Floats<kWidth> & sum, const float* from) __attribute__((always_inline)) {
    load_register<kWidth>(from, sum);
  };
  const auto keep = [](const Floats<kWidth>& sum, float* to) __attribute__((always_inline)) {
    store_register<kWidth>(sum, to);
  };
  if (!kStay) std::fill_n(sums, kRows * kPanel, 0.0f);
  for (int64_t begin = 0; begin < groups; begin += kGroupsOfBlock, x += block_stride) {
    const int64_t some = std::min(kGroupsOfBlock, groups - begin);
    for (int64_t first = 0; first < kRegistersOfPanel<kWidth>; first += kSpan) {
      if (!kStay) for_each_sum(first, load);
      for (int64_t g = 0; g < some; ++g) {
        const Grid& group = panel[begin + g];
        if (first == 0) prefetch_behind(&group, int64_t{sizeof(Grid)});
        Scales<kWidth, kSpan, kPlaces> scales;
        load_scales<Value>(group, first, scales);
        for (int64_t word = 0; word < kWords<Grid>; ++word) {
          const float* inputs = x + g * kGroup + word * kCodes<Grid>;
          const auto multiply = [&](int64_t i, const Floats<kWidth>(&weights)[kSpan])
              __attribute__((always_inline)) {
            for (int64_t row = 0; row < kRows; ++row) {
              const float value = inputs[row * kInputsOfBlock + i];
              for (int64_t r = 0; r < kSpan; ++r) held[row][r] += value * weights[r];
            }
          };
          for_each_input<Value>(group, word, first, scales, multiply);
        }
      }
      if (!kStay) for_each_sum(first, keep);
    }
  }
  if (kStay) for_each_sum(0, keep);
}

// Some inputs' weights as floats. weights: [inputs, kPanel].
template <int64_t kWidth, typename Value, typename Grid>
MAMBIFY_INLINE void expand(const Grid* groups, int64_t inputs, float* weights) {
  for (int64_t begin = 0; begin < inputs; begin += kGroup) {
    const Grid& group = groups[begin / kGroup];
    prefetch_behind(&group, int64_t{sizeof(Grid)});
    for (int64_t r = 0; r < kRegistersOfPanel<kWidth>; ++r) {
      // Without sums, registers are many, and writing to memory takes longer than shifts.
      Scales<kWidth, 1, 1> scales;
      load_scales<Value>(group, r, scales);
      for (int64_t word = 0; word < kWords<Grid>; ++word) {
        float* of_word = weights + (begin + word * kCodes<Grid>)*kPanel;
        const auto keep = [&](int64_t i, const Floats<kWidth>(&floats)[1])
            __attribute__((always_inline)) {
          store_register<kWidth>(floats[0], of_word + i * kPanel + r * kWidth);
        };
        for_each_input<Value>(group, word, r, scales, keep);
      }
    }
  }
}

}  // namespace mambify::kernels
