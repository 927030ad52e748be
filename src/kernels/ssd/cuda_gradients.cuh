// The main kernel of the backward pass, and what it leaves to others.
#pragma once

#include "kernels/cuda/fragment.cuh"
#include "kernels/ssd/cuda_chunks.cuh"

namespace mambify::kernels::ssd {

// Where gradients of one of x, B and C go: to the output or, where other blocks have heads of the
// same group, to fp32 sums of each block's own.
template <typename T>
struct Target {
  T* whole;
  float* parts;
  int slots;  // groups, or blocks of heads

  template <int kRows, int kColumns>
  __device__ void store(Fragment<kRows, kColumns>& values, int64_t token, int slot, int width,
                        int column, int rows) const {
    const int64_t place = (token * slots + slot) * width + column, stride = int64_t{slots} * width;
    if (parts) {
      store_fragment(values, parts + place, stride, rows, width - column);
    } else {
      store_fragment(values, whole + place, stride, rows, width - column);
    }
  }
};

template <typename T>
struct GradientParams {
  SsdCudaBackwardParams<T> b;
  Target<T> dx, dB, dC;
  const Chunk* table;
  const float* steps;
  const T* states;
  const T* adjoints;
  float* sums;  // [3, heads, chunks]: of A, D, dt_bias
  int64_t chunks;
  int heads_together;
  int head_buffers;  // 1 or 2: of tiles that differ from head to head
};

// Gradients of all chunks' tokens, of heads together and of vectors in parts.
template <typename T>
void launch_gradients(GradientParams<T>& p, const Plan& plan, CudaStream stream);

}  // namespace mambify::kernels::ssd
