// How the CPU cuts the scan into parallel work, the same way forward and backward: channels into
// slabs, and inside a slab time into chunks between two checkpoints, so that B, C and, backward,
// the recomputed states of a channel stay in the first cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "kernels/math.h"
#include "kernels/scan_checkpoints.h"
#include "kernels/selective_scan/params.h"

namespace mambify::kernels::selective_scan_cpu {

constexpr int64_t kChunk = kCheckpointInterval;
constexpr int64_t kSlab = 32;

inline int64_t operations_of(const SelectiveScanParams<float>& p) {
  return p.starts[p.documents] * p.channels * p.d_state;
}

// All channels of a slab read the same groups of B and C. The cut depends on the sizes alone, so
// that sums over slabs have the same bits with any number of threads.
struct Slabs {
  explicit Slabs(const SelectiveScanParams<float>& p)
      : unit(std::gcd(p.channels / p.b_groups, p.channels / p.c_groups)),
        per_unit((unit + kSlab - 1) / kSlab),
        count(p.channels / unit * per_unit) {}

  int64_t begin(int64_t slab) const { return slab / per_unit * unit + slab % per_unit * kSlab; }
  int64_t end(int64_t slab) const {
    return std::min(begin(slab) + kSlab, (slab / per_unit + 1) * unit);
  }

  int64_t unit;  // neighbouring channels with the same groups of B and C
  int64_t per_unit;
  int64_t count;
};

struct Work {
  int64_t document;
  int64_t first;         // channel
  int64_t width;         // channels
  int64_t keep;          // the token before which the final state is taken
  int64_t checkpoint;    // the document's first
  const float* initial;  // [width, d_state]; null: zero
};

inline Work make_work(const SelectiveScanParams<float>& p, const Slabs& slabs, int64_t document,
                      int64_t slab, int64_t checkpoint) {
  const int64_t first = slabs.begin(slab);
  return {.document = document,
          .first = first,
          .width = slabs.end(slab) - first,
          .keep = p.commits ? p.starts[document] + p.commits[document] : p.starts[document + 1],
          .checkpoint = checkpoint,
          .initial = p.initial_state ? p.initial_state + (document * p.channels + first) * p.d_state
                                     : nullptr};
}

// Step sizes and their products with the input for a chunk of tokens, [steps, kSlab].
struct ChunkInputs {
  alignas(64) float dt[kChunk * kSlab];
  alignas(64) float u[kChunk * kSlab];
};

MAMBIFY_INLINE void load_chunk(const SelectiveScanParams<float>& p, const Work& w, int64_t begin,
                               int64_t steps, ChunkInputs& in) {
  for (int64_t k = 0; k < steps; ++k) {
    const float* raw = p.dt + (begin + k) * p.dt_stride + w.first;
    const float* x = p.x + (begin + k) * p.x_stride + w.first;
    float* dt = in.dt + k * kSlab;
    float* u = in.u + k * kSlab;
    if (p.dt_bias) {
      const float* bias = p.dt_bias + w.first;
#pragma omp simd
      for (int64_t i = 0; i < w.width; ++i) dt[i] = fast_softplus(raw[i] + bias[i]);
    } else {
#pragma omp simd
      for (int64_t i = 0; i < w.width; ++i) dt[i] = fast_softplus(raw[i]);
    }
#pragma omp simd
    for (int64_t i = 0; i < w.width; ++i) u[i] = dt[i] * x[i];
  }
}

}  // namespace mambify::kernels::selective_scan_cpu
