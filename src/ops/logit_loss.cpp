#include "ops/logit_loss.h"

#include <ATen/ATen.h>

#include "kernels/logit_loss/params.h"
#include "ops/cuda.h"
#include "ops/rows.h"

namespace mambify {

namespace {

template <typename T>
LogitLossRows run(const LogitLossChunk& chunk, bool gradient) {
  LogitLossRows rows;
  kernels::LogitLossParams<T> p;
  p.rows = chunk.student.size(0);
  p.vocab = chunk.student.size(1);
  p.gradient = gradient;
  p.student = mutable_data<T>(chunk.student);
  const at::TensorOptions options = chunk.student.options().dtype(at::kFloat);
  if (chunk.teacher.defined()) {
    rows.kl = at::empty({p.rows}, options);
    rows.agrees = at::empty({p.rows}, options.dtype(at::kByte));
    p.teacher = mutable_data<T>(chunk.teacher);
    p.kl_scale = chunk.kl_scale.const_data_ptr<float>();
    p.kl = rows.kl.mutable_data_ptr<float>();
    p.agrees = rows.agrees.mutable_data_ptr<uint8_t>();
  }
  if (chunk.labels.defined()) {
    rows.ce = at::empty({p.rows}, options);
    p.labels = chunk.labels.const_data_ptr<int64_t>();
    p.ce_scale = chunk.ce_scale.const_data_ptr<float>();
    p.ce = rows.ce.mutable_data_ptr<float>();
  }
  if (chunk.student.is_cuda()) {
    kernels::logit_loss_cuda(p, current_cuda_stream());
  } else if constexpr (std::is_same_v<T, float>) {
    kernels::logit_loss_cpu(p);
  }
  return rows;
}

}  // namespace

LogitLossRows logit_loss(const LogitLossChunk& chunk, bool gradient) {
  const at::ScalarType type = chunk.student.scalar_type();
  TORCH_CHECK(!chunk.teacher.defined() || chunk.teacher.scalar_type() == type,
              "logit_loss: the student's logits are ", type, ", the teacher's ",
              chunk.teacher.scalar_type());
  TORCH_CHECK(type == at::kFloat || (type == at::kBFloat16 && chunk.student.is_cuda()),
              "logit_loss: no kernel for ", type, " on ", chunk.student.device());
  return type == at::kFloat ? run<float>(chunk, gradient) : run<kernels::Bf16>(chunk, gradient);
}

}  // namespace mambify
