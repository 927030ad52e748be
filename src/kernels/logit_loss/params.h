// Contract of the losses between rows of logits: KL divergence to a teacher and cross entropy, with
// their gradient, in few passes over a large vocabulary.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

// With p = softmax(teacher row) and q = softmax(student row), for every row:
//   kl = sum over v of p_v log(p_v / q_v),    ce = -log q_label,
//   gradient = kl_scale (q - p) + ce_scale (q - onehot(label)).
// Both in nats. Rows are contiguous.
template <typename T>
struct LogitLossParams {
  int64_t rows = 0;
  int64_t vocab = 0;
  bool gradient = false;  // wanted

  T* student = nullptr;  // [rows, vocab]; overwritten by the gradient if wanted, else scratch
  T* teacher = nullptr;  // [rows, vocab], overwritten; null: no KL
  const int64_t* labels = nullptr;  // [rows], negative: no cross entropy in this row; null: in none
  const Computed<T>* kl_scale = nullptr;  // [rows], read with a teacher
  const Computed<T>* ce_scale = nullptr;  // [rows], read with labels

  Computed<T>* kl = nullptr;  // [rows], written with a teacher
  Computed<T>* ce = nullptr;  // [rows], written with labels; 0 where there is none
  uint8_t* agrees = nullptr;  // [rows], written with a teacher: both have the same largest logit,
                              // the first of equal ones
};

// The definition, for T = float and double.
template <typename T>
void logit_loss_reference(const LogitLossParams<T>& p);

// Fast, parallel over rows, whose bits do not depend on each other.
void logit_loss_cpu(const LogitLossParams<float>& p);

// The same on the CUDA device in use, all pointers of its memory, T = float and Bf16; what lies
// between is fp32. Leaves the teacher's logits as they are. The same bits in every run.
template <typename T>
void logit_loss_cuda(const LogitLossParams<T>& p, CudaStream stream);

}  // namespace mambify::kernels
