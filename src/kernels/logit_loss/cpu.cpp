#include <algorithm>
#include <cmath>

#include "kernels/logit_loss/params.h"
#include "kernels/math.h"
#include "kernels/parallel.h"

namespace mambify::kernels {
namespace {

// Sums over a vocabulary are formed in fp32 within blocks of this many and in double across them:
// the divergence is a small difference of large sums.
constexpr int64_t kBlock = 2048;

struct Largest {
  float value;
  int64_t index;
};

MAMBIFY_INLINE Largest largest_of(const float* row, int64_t count) {
  float value = row[0];
#pragma omp simd reduction(max : value)
  for (int64_t v = 0; v < count; ++v) value = row[v] > value ? row[v] : value;
  return {value, std::find(row, row + count, value) - row};
}

// Replaces the row by exp(row - largest) and returns the sum.
MAMBIFY_INLINE double exponentiate(float* row, int64_t count, float largest) {
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, count);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t v = begin; v < end; ++v) {
      row[v] = fast_exp(row[v] - largest);
      sum += row[v];
    }
    total += sum;
  }
  return total;
}

struct PairSums {
  double student = 0, teacher = 0;  // of the exponentials
  double difference = 0;            // of the teacher's, times teacher minus student
};

// exponentiate for both rows in one pass.
MAMBIFY_INLINE PairSums exponentiate_pair(float* student, float* teacher, int64_t count,
                                          float student_largest, float teacher_largest) {
  PairSums total;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, count);
    float student_sum = 0, teacher_sum = 0, difference = 0;
#pragma omp simd reduction(+ : student_sum, teacher_sum, difference)
    for (int64_t v = begin; v < end; ++v) {
      const float s = student[v] - student_largest, t = teacher[v] - teacher_largest;
      const float exp_s = fast_exp(s), exp_t = fast_exp(t);
      student[v] = exp_s;
      teacher[v] = exp_t;
      student_sum += exp_s;
      teacher_sum += exp_t;
      difference += exp_t * (t - s);
    }
    total.student += student_sum;
    total.teacher += teacher_sum;
    total.difference += difference;
  }
  return total;
}

MAMBIFY_CLONES void one_row(const LogitLossParams<float>& p, int64_t row) {
  float* student = p.student + row * p.vocab;
  float* teacher = p.teacher ? p.teacher + row * p.vocab : nullptr;
  const int64_t label = p.labels ? p.labels[row] : -1;
  const Largest largest = largest_of(student, p.vocab);
  const float label_logit = label >= 0 ? student[label] - largest.value : 0;

  double student_sum = 0, teacher_sum = 0;
  if (teacher) {
    const Largest teacher_largest = largest_of(teacher, p.vocab);
    const PairSums sums =
        exponentiate_pair(student, teacher, p.vocab, largest.value, teacher_largest.value);
    student_sum = sums.student;
    teacher_sum = sums.teacher;
    p.kl[row] =
        static_cast<float>(sums.difference / teacher_sum + std::log(student_sum / teacher_sum));
    p.agrees[row] = largest.index == teacher_largest.index;
  } else {
    student_sum = exponentiate(student, p.vocab, largest.value);
  }
  if (p.labels) {
    p.ce[row] = label >= 0 ? static_cast<float>(std::log(student_sum) - label_logit) : 0.0f;
  }
  if (!p.gradient) return;

  const float kl_scale = teacher ? p.kl_scale[row] : 0;
  const float ce_scale = label >= 0 ? p.ce_scale[row] : 0;
  const float student_factor = static_cast<float>((kl_scale + ce_scale) / student_sum);
  if (teacher) {
    const float teacher_factor = static_cast<float>(kl_scale / teacher_sum);
#pragma omp simd
    for (int64_t v = 0; v < p.vocab; ++v) {
      student[v] = student[v] * student_factor - teacher[v] * teacher_factor;
    }
  } else {
#pragma omp simd
    for (int64_t v = 0; v < p.vocab; ++v) student[v] *= student_factor;
  }
  if (label >= 0) student[label] -= ce_scale;
}

}  // namespace

void logit_loss_cpu(const LogitLossParams<float>& p) {
  parallel_tasks(p.rows, p.rows * p.vocab, [&](int64_t row) { one_row(p, row); });
}

}  // namespace mambify::kernels
