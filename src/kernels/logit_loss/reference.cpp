#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/logit_loss/params.h"

namespace mambify::kernels {
namespace {

template <typename T>
std::vector<T> log_softmax(const T* logits, int64_t vocab) {
  const T largest = *std::max_element(logits, logits + vocab);
  T sum = 0;
  for (int64_t v = 0; v < vocab; ++v) sum += std::exp(logits[v] - largest);
  std::vector<T> result(vocab);
  for (int64_t v = 0; v < vocab; ++v) result[v] = logits[v] - largest - std::log(sum);
  return result;
}

}  // namespace

template <typename T>
void logit_loss_reference(const LogitLossParams<T>& p) {
  for (int64_t row = 0; row < p.rows; ++row) {
    T* student = p.student + row * p.vocab;
    const std::vector<T> log_q = log_softmax(student, p.vocab);
    std::vector<T> gradient(p.vocab, 0);
    if (p.teacher) {
      const T* teacher = p.teacher + row * p.vocab;
      const std::vector<T> log_p = log_softmax(teacher, p.vocab);
      T kl = 0;
      for (int64_t v = 0; v < p.vocab; ++v) {
        kl += std::exp(log_p[v]) * (log_p[v] - log_q[v]);
        gradient[v] += p.kl_scale[row] * (std::exp(log_q[v]) - std::exp(log_p[v]));
      }
      p.kl[row] = kl;
      p.agrees[row] = std::max_element(student, student + p.vocab) - student ==
                      std::max_element(teacher, teacher + p.vocab) - teacher;
    }
    if (p.labels) {
      const int64_t label = p.labels[row];
      p.ce[row] = label >= 0 ? -log_q[label] : 0;
      if (label >= 0) {
        for (int64_t v = 0; v < p.vocab; ++v) {
          gradient[v] += p.ce_scale[row] * (std::exp(log_q[v]) - (v == label));
        }
      }
    }
    if (p.gradient) std::copy(gradient.begin(), gradient.end(), student);
  }
}

template void logit_loss_reference(const LogitLossParams<float>&);
template void logit_loss_reference(const LogitLossParams<double>&);

}  // namespace mambify::kernels
