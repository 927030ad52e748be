#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/decode_attention/params.h"
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

// One query head over one block. Its output so far, y, is relative to exp(running.largest).
template <typename Cache>
MAMBIFY_INLINE void attend_block(const Cache* keys, const Cache* values, int64_t positions,
                                 int64_t width, float scale, const float* q, Running& running,
                                 float* y) {
  float scores[kBlock];
  float largest = running.largest;
  for (int64_t t = 0; t < positions; ++t) {
    const Cache* key = keys + t * width;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += q[i] * to_float(key[i]);
    scores[t] = scale * sum;
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
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) y[i] *= rescale;
  for (int64_t t = 0; t < positions; ++t) {
    const Cache* value = values + t * width;
    const float weight = scores[t];
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) y[i] += weight * to_float(value[i]);
  }
}

// The query heads that share one key/value head of one sequence, so that a block of the cache is
// still in the first-level cache when the next of them reads it.
template <typename Cache>
MAMBIFY_INLINE void attend(const DecodeAttentionParams<Cache>& p, int64_t sequence, int64_t group) {
  const int64_t repeats = p.heads / p.groups;
  const int64_t offset = p.rows[sequence] * p.row_stride + group * p.group_stride;
  const int64_t first = (sequence * p.heads + group * repeats) * p.width;
  float* y = p.y + first;
  std::fill(y, y + repeats * p.width, 0.0f);
  std::vector<Running> running(repeats);
  for (int64_t begin = 0; begin < p.lengths[sequence]; begin += kBlock) {
    const int64_t positions = std::min(kBlock, p.lengths[sequence] - begin);
    const Cache* keys = p.keys + offset + begin * p.width;
    const Cache* values = p.values + offset + begin * p.width;
    for (int64_t r = 0; r < repeats; ++r) {
      attend_block(keys, values, positions, p.width, p.scale, p.q + first + r * p.width, running[r],
                   y + r * p.width);
    }
  }
  for (int64_t r = 0; r < repeats; ++r) {
    const float inverse = 1 / running[r].total;
    for (int64_t i = 0; i < p.width; ++i) y[r * p.width + i] *= inverse;
  }
}

MAMBIFY_CLONES void attend_float(const DecodeAttentionParams<float>& p, int64_t sequence,
                                 int64_t group) {
  attend(p, sequence, group);
}

MAMBIFY_CLONES void attend_bf16(const DecodeAttentionParams<Bf16>& p, int64_t sequence,
                                int64_t group) {
  attend(p, sequence, group);
}

template <typename Cache, typename Attend>
void for_each_task(const DecodeAttentionParams<Cache>& p, const Attend& attend_one) {
  int64_t positions = 0;
  for (int64_t s = 0; s < p.sequences; ++s) positions += p.lengths[s];
  parallel_tasks(p.sequences * p.groups, 2 * positions * p.heads * p.width,
                 [&](int64_t task) { attend_one(p, task / p.groups, task % p.groups); });
}

}  // namespace

void decode_attention_cpu(const DecodeAttentionParams<float>& p) { for_each_task(p, attend_float); }
void decode_attention_cpu(const DecodeAttentionParams<Bf16>& p) { for_each_task(p, attend_bf16); }

}  // namespace mambify::kernels
