// How the CPU cuts the recurrence into parallel work, the same way forward and backward.
//
// Each head's state is cut into blocks of rows (of head_dim); a block's state stays in the first
// cache while time passes over it. At the widths of these models that costs a fraction of a layer's
// projections, and it is the order in which decoding computes; a chunked form made of matrix
// products would not be.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/scan_checkpoints.h"
#include "kernels/ssd/params.h"

namespace mambify::kernels::ssd_cpu {

constexpr int64_t kRows = 32;
constexpr int64_t kChunk = kCheckpointInterval;

inline int64_t operations_of(const SsdParams<float>& p) {
  return p.starts[p.documents] * p.heads * p.head_dim * p.d_state;
}

struct Blocks {
  explicit Blocks(const SsdParams<float>& p)
      : per_head((p.head_dim + kRows - 1) / kRows), count(p.heads * per_head) {}
  int64_t per_head;
  int64_t count;
};

// One block of rows of one head through one document.
struct Work {
  int64_t begin, end;  // tokens
  int64_t keep;        // the token before which the final state is taken
  int64_t head;
  int64_t first, rows;  // of the head's rows
  int64_t state;        // where its state begins in [documents, heads, head_dim, d_state]
  int64_t checkpoint;   // where its first checkpoint begins in [checkpoints, heads, ...]
};

inline Work make_work(const SsdParams<float>& p, const Blocks& blocks, int64_t document,
                      int64_t block, const std::vector<int64_t>& checkpoints) {
  const int64_t head = block / blocks.per_head, first = block % blocks.per_head * kRows;
  const auto state_of = [&](int64_t i) {
    return ((i * p.heads + head) * p.head_dim + first) * p.d_state;
  };
  return {.begin = p.starts[document],
          .end = p.starts[document + 1],
          .keep = p.commits ? p.starts[document] + p.commits[document] : p.starts[document + 1],
          .head = head,
          .first = first,
          .rows = std::min(kRows, p.head_dim - first),
          .state = state_of(document),
          .checkpoint = state_of(checkpoints[document])};
}

inline const float* x_at(const SsdParams<float>& p, const Work& w, int64_t t) {
  return p.x + t * p.x_stride + w.head / (p.heads / p.x_groups) * p.head_dim + w.first;
}
inline const float* B_at(const SsdParams<float>& p, const Work& w, int64_t t) {
  return p.B + t * p.b_stride + w.head / (p.heads / p.b_groups) * p.d_state;
}
inline const float* C_at(const SsdParams<float>& p, const Work& w, int64_t t) {
  return p.C + t * p.c_stride + w.head / (p.heads / p.c_groups) * p.d_state;
}

// Step sizes and decays of all tokens, [T, heads] each.
struct Steps {
  explicit Steps(const SsdParams<float>& p);
  AlignedFloats dt;
  AlignedFloats decay;
};

}  // namespace mambify::kernels::ssd_cpu
