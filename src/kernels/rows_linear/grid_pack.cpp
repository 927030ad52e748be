#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/parallel.h"
#include "kernels/rows_linear/params.h"

namespace mambify::kernels {
namespace {

float float_of_half(uint16_t half) {
  const uint32_t magnitude = (half & 0x7fffu) << 13, sign = (half & 0x8000u) << 16;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f) |
                              sign);
}

// The half precision number near x, by its bits; the largest where x is beyond them.
uint16_t half_near(float x) {
  constexpr uint32_t kLargest = 0x7bff;
  const auto bits = std::bit_cast<uint32_t>(std::abs(x) * 0x1p-112f);
  const uint32_t magnitude = std::min((bits + 0x1000u) >> 13, kLargest);
  return static_cast<uint16_t>(magnitude | (std::signbit(x) ? 0x8000u : 0u));
}

float as_type(float weight, const float*) { return weight; }
float as_type(float weight, const Bf16*) {
  Bf16 rounded;
  store(weight, rounded);
  return to_float(rounded);
}

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

// Calls found(half) for numbers near x, the nearest first, until it returns true.
template <typename Found>
bool any_half_near(float x, const Found& found) {
  // As many as round to one Bf16 from either side, and one more.
  constexpr int kFurthest = 9;
  const int near = half_near(x) & 0x7fff, sign = half_near(x) & 0x8000;
  for (int distance = 0; distance <= kFurthest; ++distance) {
    for (const int magnitude : {near - distance, near + distance}) {
      if (magnitude < 0 || magnitude >= 0x7c00) continue;
      if (found(static_cast<uint16_t>(sign | magnitude))) return true;
      if (distance == 0) break;
    }
  }
  return false;
}

// A group of weights of one output on a grid: what they are made of.
struct OnGrid {
  uint16_t step = 0, base = 0;
  int8_t q[kGroup] = {};
};

// Fills in q if the weights lie on this step and base.
template <typename Weight>
bool codes_on(const float* weights, int lowest, int highest, OnGrid& grid) {
  constexpr const Weight* kType = nullptr;
  const float step = float_of_half(grid.step), base = float_of_half(grid.base);
  const float inverse = step != 0 ? 1 / step : 0.0f;
  for (int64_t i = 0; i < kGroup; ++i) {
    const float q = std::clamp(std::nearbyint((weights[i] - base) * inverse),
                               static_cast<float>(lowest), static_cast<float>(highest));
    if (!same_bits(as_type(q * step + base, kType), weights[i])) return false;
    grid.q[i] = static_cast<int8_t>(q);
  }
  return true;
}

// Whoever rounds weights to a grid puts the extremes of a group on it, so that these tell which.
template <typename Weight>
bool find_grid(const float* weights, const Grid4Group*, OnGrid& grid) {
  constexpr const Weight* kType = nullptr;
  const auto [lowest, highest] = std::minmax_element(weights, weights + kGroup);
  struct Guess {
    float base, step;
  };
  // Q4_1 has the lowest and the highest weight at 0 and 15; Q4_0 the largest at 0, and 0 at 8.
  for (const Guess& guess : {Guess{*lowest, (*highest - *lowest) / 15},
                             Guess{*lowest, *lowest / -8}, Guess{*highest, *highest / -8}}) {
    const bool found = any_half_near(guess.base, [&](uint16_t base) {
      if (!same_bits(as_type(float_of_half(base), kType), guess.base)) return false;
      grid.base = base;
      return any_half_near(guess.step, [&](uint16_t step) {
        grid.step = step;
        return codes_on<Weight>(weights, 0, 15, grid);
      });
    });
    if (found) return true;
  }
  return false;
}

template <typename Weight>
bool find_grid(const float* weights, const Grid8Group*, OnGrid& grid) {
  float largest = 0;
  for (int64_t i = 0; i < kGroup; ++i) largest = std::max(largest, std::abs(weights[i]));
  return any_half_near(largest / 127, [&](uint16_t step) {
    grid.step = step;
    return codes_on<Weight>(weights, -127, 127, grid);
  });
}

void place(const OnGrid& grid, int64_t j, Grid4Group& group) {
  for (int64_t i = 0; i < kGroup; ++i) {
    group.codes[i / 8][j] |= static_cast<uint32_t>(grid.q[i]) << 4 * (i % 8);
  }
  group.scales[j] = grid.step | static_cast<uint32_t>(grid.base) << 16;
}
void place(const OnGrid& grid, int64_t j, Grid8Group& group) {
  for (int64_t i = 0; i < kGroup; ++i) {
    group.codes[i / 4][j] |= static_cast<uint32_t>(grid.q[i] + 128) << 8 * (i % 4);
  }
  group.steps[j % (kPanel / 2)] |= static_cast<uint32_t>(grid.step) << (j < kPanel / 2 ? 0 : 16);
}

template <typename Weight, typename Grid>
bool pack_panel(const Weight* weight, int64_t outputs, int64_t inputs, Grid* panel) {
  for (int64_t g = 0; g < groups_of(inputs); ++g) {
    std::memset(&panel[g], 0, sizeof(Grid));
    for (int64_t j = 0; j < outputs; ++j) {
      float values[kGroup];
      const Weight* from = weight + j * inputs + g * kGroup;
      for (int64_t i = 0; i < kGroup; ++i) {
        values[i] = to_float(from[i]);
        if (!std::isfinite(values[i])) return false;
      }
      OnGrid grid;
      if (!find_grid<Weight>(values, panel, grid)) return false;
      place(grid, j, panel[g]);
    }
  }
  return true;
}

}  // namespace

template <typename Weight, typename Grid>
bool pack_grid_cpu(const PackParams<Weight, Grid>& p) {
  if (p.inputs % kGroup != 0) return false;
  std::atomic<bool> on_grid = true;
  parallel_tasks(panels_of(p.outputs), p.outputs * p.inputs, [&](int64_t index) {
    if (!on_grid.load(std::memory_order_relaxed)) return;
    const int64_t first = index * kPanel;
    if (!pack_panel(p.weight + first * p.inputs, std::min(kPanel, p.outputs - first), p.inputs,
                    p.packed + index * groups_of(p.inputs))) {
      on_grid.store(false, std::memory_order_relaxed);
    }
  });
  return on_grid;
}

template bool pack_grid_cpu(const PackParams<float, Grid4Group>& p);
template bool pack_grid_cpu(const PackParams<float, Grid8Group>& p);
template bool pack_grid_cpu(const PackParams<Bf16, Grid4Group>& p);
template bool pack_grid_cpu(const PackParams<Bf16, Grid8Group>& p);

}  // namespace mambify::kernels
