// Gradients of the step sizes of a chunk's tokens, from sums over rows and columns of the matrices
// that its other gradients are products of.
#pragma once

#include "kernels/ssd/cuda_gradients.cuh"

namespace mambify::kernels::ssd {

// Sums over rows and columns of matrices, for the gradients of step sizes: a part for each warp
// that has some of a row or column.
template <int kTokens, int kRowParts, int kColumnParts>
struct StepSums {
  float scores_of_output[kRowParts][kTokens];    // over the inputs before
  float scores_of_input[kColumnParts][kTokens];  // over the outputs behind
  float own_score[kTokens];                      // of an input to its own output
  float own_product[kTokens];                    // x dy
  float state_to_output[kColumnParts][kTokens];
  float input_to_adjoint[kColumnParts][kTokens];
  float state_to_adjoint[kRowParts * kColumnParts];
};

// By one warp: gradients of a head's step sizes, and the chunk's part of those of A, D and dt_bias.
template <typename T, typename Sums>
__device__ inline void finish_steps(const GradientParams<T>& p,
                                    const float (&steps)[kStepRows][kChunk<T>], const Sums& sums,
                                    Chunk place, int64_t chunk, int head) {
  constexpr int kTokens = kChunk<T>, kPerLane = kTokens / 32;
  const SsdCudaParams<T>& in = p.b.forward;
  const int lane = static_cast<int>(threadIdx.x) % 32, first = lane * kPerLane;
  const float A = in.A[head];
  const auto add = [&](const auto& parts, int i) {
    float sum = 0;
    for (const auto& part : parts) sum += part[i];
    return sum;
  };
  // A step's log decay is in every pair of an output at or behind it and an input before it. Pairs
  // are counted by the output, less those whose input is not before; then what came into the chunk,
  // what leaves it, and what passes through.
  float of_step[kPerLane], behind[kPerLane], before[kPerLane], sum_behind = 0, sum_before = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int token = first + i;
    const float s = steps[kStep][token];
    const float leaving = steps[kUntilEnd][token] * add(sums.input_to_adjoint, token);
    const float of_input = add(sums.scores_of_input, token);
    of_step[i] = of_input + sums.own_score[token] + leaving;
    behind[i] = add(sums.scores_of_output, token) - s * of_input + add(sums.state_to_output, token);
    before[i] = s * leaving;
    sum_behind += behind[i];
    sum_before += before[i];
  }
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const float other_behind = __shfl_down_sync(~0u, sum_behind, distance);
    const float other_before = __shfl_up_sync(~0u, sum_before, distance);
    if (lane + distance < 32) sum_behind += other_behind;
    if (lane >= distance) sum_before += other_before;
  }
  float all_behind = __shfl_down_sync(~0u, sum_behind, 1);
  float all_before = __shfl_up_sync(~0u, sum_before, 1);
  if (lane == 31) all_behind = 0;
  if (lane == 0) all_before = 0;
  float through = 0;
  for (const float part : sums.state_to_adjoint) through += part;
  all_before += through * steps[kSinceBegin][kTokens - 1];

  float log_decay[kPerLane];
#pragma unroll
  for (int i = kPerLane - 1; i >= 0; --i) log_decay[i] = all_behind += behind[i];
  float dA = 0, dD = 0, dt_bias = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int token = first + i;
    log_decay[i] += all_before;
    all_before += before[i];
    const float ddt = (of_step[i] + A * log_decay[i]) * steps[kSlope][token];
    if (token < place.tokens) {
      p.b.ddt[(int64_t{place.token} + token) * in.heads + head] = rounded<T>(ddt);
    }
    dA += log_decay[i] * steps[kStep][token];
    dD += sums.own_product[token];
    dt_bias += ddt;
  }
  dA = warp_sum(dA), dD = warp_sum(dD), dt_bias = warp_sum(dt_bias);
  if (lane == 0) {
    const int64_t plane = in.heads * p.chunks, at = head * p.chunks + chunk;
    p.sums[at] = dA;
    p.sums[plane + at] = dD;
    p.sums[2 * plane + at] = dt_bias;
  }
}

}  // namespace mambify::kernels::ssd
