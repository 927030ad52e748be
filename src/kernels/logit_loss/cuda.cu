#include <algorithm>

#include "kernels/cuda/elements.cuh"
#include "kernels/logit_loss/params.h"

// A block takes a row. It reads the logits once for the sums, and once more for the gradient: what
// fits of them is kept in shared memory in between, the rest is likely in the L2 cache.

namespace mambify::kernels {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr float kLowest = -1e30f;  // below every logit, and its differences are finite

__device__ inline float exponential(float x) { return fast_exp2(x * kLog2E); }

// Of one model's logits, those that were looked at: sum of e^(logit - largest).
struct Side {
  float largest = kLowest;
  int place = 0;  // of the first largest
  float sum = 0;
};
struct RowSums {
  Side student, teacher;
  // Sum of e^(t - largest t) ((t - largest t) - (s - largest s)).
  float difference = 0;
};

// Makes `largest` what the sums are relative to.
__device__ inline void raise(RowSums& sums, float student_largest, float teacher_largest) {
  const float s = student_largest - sums.student.largest;
  const float t = teacher_largest - sums.teacher.largest;
  const float teacher_factor = exponential(-t);
  sums.student.sum *= exponential(-s);
  sums.difference = teacher_factor * (sums.difference + sums.teacher.sum * (s - t));
  sums.teacher.sum *= teacher_factor;
  sums.student.largest = student_largest;
  sums.teacher.largest = teacher_largest;
}

__device__ inline int place_of_larger(const Side& a, const Side& b) {
  if (a.largest == b.largest) return min(a.place, b.place);
  return a.largest > b.largest ? a.place : b.place;
}

__device__ inline RowSums combine(RowSums a, RowSums b) {
  const int student_place = place_of_larger(a.student, b.student);
  const int teacher_place = place_of_larger(a.teacher, b.teacher);
  const float student_largest = fmaxf(a.student.largest, b.student.largest);
  const float teacher_largest = fmaxf(a.teacher.largest, b.teacher.largest);
  raise(a, student_largest, teacher_largest);
  raise(b, student_largest, teacher_largest);
  return {{student_largest, student_place, a.student.sum + b.student.sum},
          {teacher_largest, teacher_place, a.teacher.sum + b.teacher.sum},
          a.difference + b.difference};
}

__device__ inline Side shuffled(const Side& side, int offset) {
  return {__shfl_xor_sync(~0u, side.largest, offset), __shfl_xor_sync(~0u, side.place, offset),
          __shfl_xor_sync(~0u, side.sum, offset)};
}

__device__ inline RowSums warp_combine(RowSums sums) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const RowSums other{shuffled(sums.student, offset), shuffled(sums.teacher, offset),
                        __shfl_xor_sync(~0u, sums.difference, offset)};
    sums = combine(sums, other);
  }
  return sums;
}

// Of the whole row, in each thread.
__device__ inline RowSums block_combine(RowSums sums) {
  __shared__ RowSums warps[kWarps];
  sums = warp_combine(sums);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sums;
  __syncthreads();
  static_assert(kWarps == 32);
  return warp_combine(warps[threadIdx.x % 32]);
}

template <int kCount>
__device__ inline void see_largest(const Elements<kCount>& logits, int first, Side& side,
                                   float& largest) {
  float here = logits[0];
#pragma unroll
  for (int i = 1; i < kCount; ++i) here = fmaxf(here, logits[i]);
  largest = side.largest;
  if (!(here > side.largest)) return;
  largest = here;
#pragma unroll
  for (int i = kCount - 1; i >= 0; --i) {
    if (logits[i] == here) side.place = first + i;
  }
}

template <int kCount, bool kTeacher>
__device__ inline void add(const Elements<kCount>& student, const Elements<kCount>& teacher,
                           int first, RowSums& sums) {
  float student_largest, teacher_largest = sums.teacher.largest;
  see_largest(student, first, sums.student, student_largest);
  if constexpr (kTeacher) see_largest(teacher, first, sums.teacher, teacher_largest);
  if (student_largest > sums.student.largest || teacher_largest > sums.teacher.largest) {
    raise(sums, student_largest, teacher_largest);
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float s = student[i] - student_largest;
    sums.student.sum += exponential(s);
    if constexpr (kTeacher) {
      const float t = teacher[i] - teacher_largest, weight = exponential(t);
      sums.teacher.sum += weight;
      sums.difference += weight * (t - s);
    }
  }
}

// cached: how many of a row's groups of kCount logits, of both models, shared memory holds.
template <typename T, int kCount, bool kTeacher>
__global__ void __launch_bounds__(kThreads, 1) loss(LogitLossParams<T> p, int cached) {
  using Bits = ElementBits<T, kCount>;
  extern __shared__ uint4 shared[];
  Bits* cache = reinterpret_cast<Bits*>(shared);
  const int64_t row = blockIdx.x;
  T* student = p.student + row * p.vocab;
  const T* teacher = kTeacher ? p.teacher + row * p.vocab : student;
  const int groups = static_cast<int>(p.vocab) / kCount;
  const int label = p.labels ? static_cast<int>(p.labels[row]) : -1;
  const float label_logit = label >= 0 ? as_float(student[label]) : 0;

  RowSums sums;
#pragma unroll 2
  for (int g = threadIdx.x; g < groups; g += kThreads) {
    const Bits s = reinterpret_cast<const Bits*>(student)[g];
    const Bits t = reinterpret_cast<const Bits*>(teacher)[g];
    if (g < cached) {
      cache[g] = s;
      if constexpr (kTeacher) cache[cached + g] = t;
    }
    add<kCount, kTeacher>(elements_of<T, kCount>(s), elements_of<T, kCount>(t), g * kCount, sums);
  }
  sums = block_combine(sums);
  if (threadIdx.x == 0) {
    if constexpr (kTeacher) {
      p.kl[row] = sums.difference / sums.teacher.sum + logf(sums.student.sum / sums.teacher.sum);
      p.agrees[row] = sums.student.place == sums.teacher.place;
    }
    if (p.labels) {
      p.ce[row] = label >= 0 ? logf(sums.student.sum) - (label_logit - sums.student.largest) : 0.0f;
    }
  }
  if (!p.gradient) return;

  const float kl_scale = kTeacher ? p.kl_scale[row] : 0.0f;
  const float ce_scale = label >= 0 ? p.ce_scale[row] : 0.0f;
  const float student_factor = (kl_scale + ce_scale) / sums.student.sum;
  const float teacher_factor = kTeacher ? kl_scale / sums.teacher.sum : 0.0f;
  // label_logit has been read by all before any of them overwrites it: block_combine has a barrier.
#pragma unroll 2
  for (int g = threadIdx.x; g < groups; g += kThreads) {
    const bool kept = g < cached;
    auto gradient =
        elements_of<T, kCount>(kept ? cache[g] : reinterpret_cast<const Bits*>(student)[g]);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      gradient[i] = exponential(gradient[i] - sums.student.largest) * student_factor;
    }
    if constexpr (kTeacher) {
      const auto t = elements_of<T, kCount>(kept ? cache[cached + g]
                                                 : reinterpret_cast<const Bits*>(teacher)[g]);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        gradient[i] -= exponential(t[i] - sums.teacher.largest) * teacher_factor;
      }
    }
    if (label >= 0 && label / kCount == g) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (label % kCount == i) gradient[i] -= ce_scale;
      }
    }
    store_elements(gradient, student + g * kCount);
  }
}

template <typename T, int kCount, bool kTeacher>
void start(const LogitLossParams<T>& p, CudaStream stream) {
  // What a block of sm_80 has at most is 163 KB, less what the sums of warps take.
  constexpr int64_t kMostShared = 160 << 10;
  const int64_t group_bytes = kCount * static_cast<int64_t>(sizeof(T)) * (kTeacher ? 2 : 1);
  const int64_t cached =
      p.gradient && kCount > 1 ? std::min(p.vocab / kCount, kMostShared / group_bytes) : 0;
  const auto shared = static_cast<int>(cached * group_bytes);
  check_cuda(cudaFuncSetAttribute(loss<T, kCount, kTeacher>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  loss<T, kCount, kTeacher>
      <<<static_cast<unsigned>(p.rows), kThreads, shared, static_cast<cudaStream_t>(stream)>>>(
          p, static_cast<int>(cached));
  check_cuda(cudaGetLastError());
}

template <typename T, int kCount>
void start(const LogitLossParams<T>& p, CudaStream stream) {
  return p.teacher ? start<T, kCount, true>(p, stream) : start<T, kCount, false>(p, stream);
}

}  // namespace

template <typename T>
void logit_loss_cuda(const LogitLossParams<T>& p, CudaStream stream) {
  constexpr int kSize = kVectorSize<T>;
  if (p.rows == 0) return;
  if (in_vectors(p.student, p.vocab, kSize) && in_vectors(p.teacher, p.vocab, kSize)) {
    start<T, kSize>(p, stream);
  } else {
    start<T, 1>(p, stream);
  }
}

template void logit_loss_cuda(const LogitLossParams<float>&, CudaStream);
template void logit_loss_cuda(const LogitLossParams<Bf16>&, CudaStream);

}  // namespace mambify::kernels
