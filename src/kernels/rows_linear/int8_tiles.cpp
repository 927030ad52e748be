#include "kernels/rows_linear/int8_tiles.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/rows_linear/panel.h"
#if defined(MAMBIFY_AVX512_VNNI)
#include <immintrin.h>
#endif

namespace mambify::kernels {
namespace {

constexpr int64_t kQuads = kGroup / 4;

// sum + dot * scales, rounded once, is written out in each tile: a contraction by the compiler
// would be up to it.
void tile_plain(const Int8Group* panel, int64_t groups, const Int8Inputs* x, float* y) {
  float sums[kPanel] = {};
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t j = 0; j < kPanel; ++j) {
      int32_t dot = x[g].start;
      for (int64_t i = 0; i < kGroup; ++i) {
        dot += panel[g].weights[i / 4][j][i % 4] * x[g].values[i];
      }
      const float scale = to_float(panel[g].scales[place_in_panel(panel[g].scales, j)]);
      sums[j] = std::fma(static_cast<float>(dot), scale * x[g].scale, sums[j]);
    }
  }
  std::memcpy(y, sums, sizeof(sums));
}
constexpr Int8Tile kPlainTiles[] = {tile_plain};

#if defined(MAMBIFY_AVX512_VNNI)

// Asks for what is multiplied a few groups later.
MAMBIFY_INLINE void prefetch_behind(const void* weights) {
  constexpr int64_t kBytes = 4096;
  __builtin_prefetch(static_cast<const char*>(weights) + kBytes);
}
MAMBIFY_INLINE void prefetch_behind(const uint8_t (&weights)[kPanel][4]) {
  prefetch_behind(&weights[0]);
  prefetch_behind(&weights[kHalf]);
}

MAMBIFY_INLINE int32_t load_quad(const Int8Inputs& x, int64_t quad) {
  int32_t values;
  std::memcpy(&values, x.values + 4 * quad, sizeof(values));
  return values;
}

using Lanes = Floats<kHalf>;
using Integers = Register<kHalf>::Integers;

// sums[j] += the products of four weights of output j with four inputs.
MAMBIFY_AVX512_VNNI inline Integers add_products(Integers sums, const void* weights, __m512i x) {
  return reinterpret_cast<Integers>(
      _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sums), _mm512_loadu_si512(weights), x));
}

template <int kRows>
MAMBIFY_AVX512_VNNI void tile_vnni(const Int8Group* panel, int64_t groups, const Int8Inputs* x,
                                   float* y) {
  Lanes low[kRows], high[kRows];
  for (int r = 0; r < kRows; ++r) low[r] = high[r] = Lanes{};
  for (int64_t g = 0; g < groups; ++g) {
    const Int8Group& group = panel[g];
    Integers low_dots[kRows], high_dots[kRows];
    for (int r = 0; r < kRows; ++r) {
      low_dots[r] = high_dots[r] = Integers{} + x[r * groups + g].start;
    }
    for (int64_t quad = 0; quad < kQuads; ++quad) {
      prefetch_behind(group.weights[quad]);
      for (int r = 0; r < kRows; ++r) {
        const __m512i values = _mm512_set1_epi32(load_quad(x[r * groups + g], quad));
        low_dots[r] = add_products(low_dots[r], group.weights[quad], values);
        high_dots[r] = add_products(high_dots[r], group.weights[quad] + kHalf, values);
      }
    }
    prefetch_behind(&group.scales);
    Lanes scales[2];
    load_pair<kHalf>(group.scales, /*pair=*/0, scales);
    for (int r = 0; r < kRows; ++r) {
      const float scale = x[r * groups + g].scale;
      low[r] =
          _mm512_fmadd_ps(__builtin_convertvector(low_dots[r], Lanes), scales[0] * scale, low[r]);
      high[r] =
          _mm512_fmadd_ps(__builtin_convertvector(high_dots[r], Lanes), scales[1] * scale, high[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    store_register<kHalf>(low[r], y + r * kPanel);
    store_register<kHalf>(high[r], y + r * kPanel + kHalf);
  }
}
// Each row takes four of the 32 registers.
constexpr Int8Tile kVnniTiles[] = {tile_vnni<1>, tile_vnni<2>, tile_vnni<3>, tile_vnni<4>,
                                   tile_vnni<5>, tile_vnni<6>, tile_vnni<7>};

// A quarter of the panel at a time, its sums in memory: there are 16 registers of 8 outputs each.
template <int kRows>
MAMBIFY_AVX2 void tile_avx2(const Int8Group* panel, int64_t groups, const Int8Inputs* x, float* y) {
  constexpr int64_t kPart = 8;
  float sums[kRows][kPanel] = {};
  for (int64_t g = 0; g < groups; ++g) {
    const Int8Group& group = panel[g];
    for (int64_t quad = 0; quad < kQuads; ++quad) prefetch_behind(group.weights[quad]);
    prefetch_behind(&group.scales);
    for (int64_t first = 0; first < kPanel; first += kPart) {
      __m256i dots[kRows];
      for (int r = 0; r < kRows; ++r) dots[r] = _mm256_setzero_si256();
      for (int64_t quad = 0; quad < kQuads; ++quad) {
        // The signs of the weights move to the inputs: two products of magnitudes up to 127 fit
        // into 16 bits, which is where this instruction saturates.
        const __m256i weights = _mm256_xor_si256(
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(group.weights[quad][first])),
            _mm256_set1_epi8(-128));
        const __m256i magnitudes = _mm256_abs_epi8(weights);
        for (int r = 0; r < kRows; ++r) {
          const __m256i values = _mm256_set1_epi32(load_quad(x[r * groups + g], quad));
          const __m256i pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(values, weights));
          dots[r] = _mm256_add_epi32(dots[r], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
      }
      const __m256i pairs = _mm256_loadu_si256(
          reinterpret_cast<const __m256i*>(group.scales + 2 * (first % (kHalf))));
      const __m256 scales =
          _mm256_castsi256_ps(first < kHalf ? _mm256_slli_epi32(pairs, 16)
                                            : _mm256_and_si256(pairs, _mm256_set1_epi32(~0xffff)));
      for (int r = 0; r < kRows; ++r) {
        const __m256 scale = _mm256_set1_ps(x[r * groups + g].scale);
        const __m256 sum =
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r]), _mm256_mul_ps(scales, scale),
                            _mm256_loadu_ps(sums[r] + first));
        _mm256_storeu_ps(sums[r] + first, sum);
      }
    }
  }
  std::memcpy(y, sums, sizeof(sums));
}
constexpr Int8Tile kAvx2Tiles[] = {tile_avx2<1>, tile_avx2<2>, tile_avx2<3>, tile_avx2<4>,
                                   tile_avx2<5>, tile_avx2<6>, tile_avx2<7>, tile_avx2<8>};

#endif

std::vector<Int8Tiles> available_tiles() {
  std::vector<Int8Tiles> available;
#if defined(MAMBIFY_AVX512_VNNI)
  if (has_avx512_vnni()) available.push_back({"avx512_vnni", kVnniTiles});
  if (has_avx2()) available.push_back({"avx2", kAvx2Tiles});
#endif
  available.push_back({"plain", kPlainTiles});
  return available;
}

}  // namespace

std::span<const Int8Tiles> int8_tiles() {
  static const std::vector<Int8Tiles> available = available_tiles();
  return available;
}

}  // namespace mambify::kernels
