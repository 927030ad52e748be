// Contracts of the two ends of a decoding pass: its plan and embeddings of the tokens it reads, and
// draws from the scores of what follows them.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cuda/pass.h"
#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

// One draw by Gumbel-max over all scored tokens: the largest score / temperature + noise, where the
// noise is -log(-log u) with u of Philox at (token id, position, sequence) with the seed as its
// key, as CounterRandom has it. Temperature 0: the largest score. Of equal ones the lowest id.
struct PassDraw {
  double temperature = 0;
  uint64_t seed = 0;
  uint32_t sequence = 0;
  uint32_t position = 0;
};

// The plan of a pass, from pinned memory, which kernels can read, to the device's. A copy of the
// driver's takes as long as several kernels.
struct PassPlanParams {
  struct Parts {
    PassToken* tokens = nullptr;
    PassSequence* sequences = nullptr;
    PassDraw* draws = nullptr;
  };
  int64_t tokens = 0, sequences = 0, draws = 0;
  Parts from, to;
};
void pass_plan_cuda(const PassPlanParams& p, CudaStream stream);

// y[r] = embedding[tokens[r].id].
template <typename T>
struct PassEmbedParams {
  int64_t rows = 0;
  int64_t width = 0;
  const PassToken* tokens = nullptr;
  const T* embedding = nullptr;  // [vocabulary, stride]
  int64_t stride = 0;
  T* y = nullptr;  // [rows, width]
};

// The token that is drawn, or -1 where no score is a number.
template <typename T>
struct PassDrawParams {
  int64_t rows = 0;
  int64_t outputs = 0;              // scores of a row
  const int32_t* tokens = nullptr;  // [outputs], of which token each is, ascending; null: its place
  const T* scores = nullptr;        // [rows, stride]
  int64_t stride = 0;
  const PassDraw* draws = nullptr;  // [rows]
  void* scratch = nullptr;          // pass_draw_scratch_bytes(rows), zeros before and after
  int32_t* ids = nullptr;           // [rows]; device or pinned memory
};
int64_t pass_draw_scratch_bytes(int64_t rows);

template <typename T>
void pass_embed_cuda(const PassEmbedParams<T>& p, CudaStream stream);
template <typename T>
void pass_draw_cuda(const PassDrawParams<T>& p, CudaStream stream);

}  // namespace mambify::kernels
