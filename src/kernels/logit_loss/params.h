// Contract of the losses between rows of logits: KL divergence to a teacher and cross entropy, with
// their gradient, in few passes over a large vocabulary.
#pragma once

#include <cstdint>

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
  const T* kl_scale = nullptr;      // [rows], read with a teacher
  const T* ce_scale = nullptr;      // [rows], read with labels

  T* kl = nullptr;            // [rows], written with a teacher
  T* ce = nullptr;            // [rows], written with labels; 0 where there is none
  uint8_t* agrees = nullptr;  // [rows], written with a teacher: both have the same largest logit,
                              // the first of equal ones
};

// The definition, for T = float and double.
template <typename T>
void logit_loss_reference(const LogitLossParams<T>& p);

// Fast, parallel over rows, whose bits do not depend on each other.
void logit_loss_cpu(const LogitLossParams<float>& p);

}  // namespace mambify::kernels
