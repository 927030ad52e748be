#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/decode_attention/params.h"
#include "kernels/lanes.h"
#include "kernels/math.h"
#include "kernels/parallel.h"

namespace mambify::kernels {
namespace {

constexpr int64_t kBlock = 64;  // positions whose scores are held at once

// What is known of one query head after some blocks: online softmax (Milakov and Gimelshein 2018,
// arXiv 1805.02867).
struct Running {
  float largest = -std::numeric_limits<float>::infinity();
  float total = 0;
};

template <int64_t kWidth, typename T>
MAMBIFY_INLINE float dot(const float* q, const T* key, int64_t width) {
  constexpr int64_t kRegisters = kLanes / kWidth;
  typename Register<kWidth>::Floats sums[kRegisters] = {}, a, b;
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int64_t r = 0; r < kRegisters; ++r) {
      load_register<kWidth>(q + i + r * kWidth, a);
      load_register<kWidth>(key + i + r * kWidth, b);
      sums[r] += a * b;
    }
  }
  float lanes[kLanes];
  for (int64_t r = 0; r < kRegisters; ++r) store_register<kWidth>(sums[r], lanes + r * kWidth);
  for (int64_t lane = 0; i < width; ++i, ++lane) lanes[lane] += q[i] * to_float(key[i]);
  return sum_lanes(lanes);
}

// y = rescale y + the values of a block times their weights, for kCount registers of a head.
template <int64_t kWidth, int64_t kCount, typename T>
MAMBIFY_INLINE void add_values(const T* values, int64_t positions, int64_t width,
                               const float* weights, float rescale, float* y) {
  typename Register<kWidth>::Floats sums[kCount], value;
  for (int64_t i = 0; i < kCount; ++i) {
    load_register<kWidth>(y + i * kWidth, sums[i]);
    sums[i] *= rescale;
  }
  for (int64_t t = 0; t < positions; ++t) {
    for (int64_t i = 0; i < kCount; ++i) {
      load_register<kWidth>(values + t * width + i * kWidth, value);
      sums[i] += weights[t] * value;
    }
  }
  for (int64_t i = 0; i < kCount; ++i) store_register<kWidth>(sums[i], y + i * kWidth);
}

// One query head over one block. Its output so far, y, is relative to exp(running.largest).
template <int64_t kWidth, typename T>
MAMBIFY_INLINE void attend_block(const T* keys, const T* values, int64_t positions, int64_t width,
                                 float scale, const float* q, Running& running, float* y) {
  float scores[kBlock];
  float largest = running.largest;
  for (int64_t t = 0; t < positions; ++t) {
    const T* key = keys + t * width;
    scores[t] = scale * dot<kWidth>(q, key, width);
    largest = scores[t] > largest ? scores[t] : largest;
  }
  const float rescale = fast_exp(running.largest - largest);
  running.largest = largest;
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t t = 0; t < positions; ++t) {
    scores[t] = fast_exp(scores[t] - largest);
    total += scores[t];
  }
  running.total = running.total * rescale + total;
  int64_t i = 0;
  for (; i + 4 * kWidth <= width; i += 4 * kWidth) {
    add_values<kWidth, 4>(values + i, positions, width, scores, rescale, y + i);
  }
  for (; i + kWidth <= width; i += kWidth) {
    add_values<kWidth, 1>(values + i, positions, width, scores, rescale, y + i);
  }
  for (; i < width; ++i) {
    y[i] *= rescale;
    for (int64_t t = 0; t < positions; ++t) y[i] += scores[t] * to_float(values[t * width + i]);
  }
}

// The query heads that share one key/value head of one sequence, so that a block of the cache is
// still in the first-level cache when the next of them reads it.
template <int64_t kWidth, typename T>
MAMBIFY_INLINE void attend(const DecodeAttentionParams<T>& p, int64_t sequence, int64_t group) {
  const int64_t repeats = p.heads / p.groups, size = repeats * p.width;
  const int64_t offset = p.rows[sequence] * p.row_stride + group * p.group_stride;
  const int64_t first = (sequence * p.heads + group * repeats) * p.width;
  const AlignedFloats rows(2 * size);
  float *q = rows.data(), *y = q + size;
  for (int64_t i = 0; i < size; ++i) q[i] = to_float(p.q[first + i]);
  std::fill(y, y + size, 0.0f);
  std::vector<Running> running(repeats);
  for (int64_t begin = 0; begin < p.lengths[sequence]; begin += kBlock) {
    const int64_t positions = std::min(kBlock, p.lengths[sequence] - begin);
    const T* keys = p.keys + offset + begin * p.width;
    const T* values = p.values + offset + begin * p.width;
    for (int64_t r = 0; r < repeats; ++r) {
      attend_block<kWidth>(keys, values, positions, p.width, p.scale, q + r * p.width, running[r],
                           y + r * p.width);
    }
  }
  for (int64_t r = 0; r < repeats; ++r) {
    const float inverse = 1 / running[r].total;
    for (int64_t i = r * p.width; i < (r + 1) * p.width; ++i) store(y[i] * inverse, p.y[first + i]);
  }
}

#if defined(MAMBIFY_AVX512)
template <typename T>
MAMBIFY_AVX512 void attend_avx512(const DecodeAttentionParams<T>& p, int64_t sequence,
                                  int64_t group) {
  attend<16>(p, sequence, group);
}
template <typename T>
MAMBIFY_AVX2 void attend_avx2(const DecodeAttentionParams<T>& p, int64_t sequence, int64_t group) {
  attend<8>(p, sequence, group);
}
#endif
template <typename T>
void attend_plain(const DecodeAttentionParams<T>& p, int64_t sequence, int64_t group) {
  attend<4>(p, sequence, group);
}

template <typename T>
auto choose_attend() {
#if defined(MAMBIFY_AVX512)
  if (has_avx512()) return attend_avx512<T>;
  if (has_avx2()) return attend_avx2<T>;
#endif
  return attend_plain<T>;
}

template <typename T>
void attend_all(const DecodeAttentionParams<T>& p) {
  static const auto attend_one = choose_attend<T>();
  int64_t positions = 0;
  for (int64_t s = 0; s < p.sequences; ++s) positions += p.lengths[s];
  parallel_tasks(p.sequences * p.groups, 2 * positions * p.heads * p.width,
                 [&](int64_t task) { attend_one(p, task / p.groups, task % p.groups); });
}

}  // namespace

void decode_attention_cpu(const DecodeAttentionParams<float>& p) { attend_all(p); }
void decode_attention_cpu(const DecodeAttentionParams<Bf16>& p) { attend_all(p); }

}  // namespace mambify::kernels
