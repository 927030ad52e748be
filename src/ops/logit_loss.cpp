#include "ops/logit_loss.h"

#include <ATen/ATen.h>

#include "kernels/logit_loss/params.h"

namespace mambify {

LogitLossRows composed_logit_loss(const LogitLossChunk& chunk, bool gradient) {
  LogitLossRows rows;
  const at::Tensor log_q = at::log_softmax(chunk.student, 1);
  at::Tensor student_gradient;  // q times the sum of both scales, minus what is subtracted below
  at::Tensor scale = at::zeros({chunk.student.size(0)}, chunk.student.options());
  if (chunk.teacher.defined()) scale += chunk.kl_scale;
  if (chunk.labels.defined()) scale += chunk.ce_scale;
  if (gradient) student_gradient = log_q.exp().mul_(scale.unsqueeze(1));

  if (chunk.teacher.defined()) {
    rows.agrees = at::argmax(chunk.student, 1).eq(at::argmax(chunk.teacher, 1)).to(at::kByte);
    const at::Tensor log_p = at::log_softmax(chunk.teacher, 1), p = log_p.exp();
    rows.kl = (log_p - log_q).mul_(p).sum(1);
    if (gradient) student_gradient.addcmul_(p, chunk.kl_scale.unsqueeze(1), -1);
  }
  if (chunk.labels.defined()) {
    const at::Tensor label = chunk.labels.clamp_min(0).unsqueeze(1);
    const at::Tensor has_label = chunk.labels.ge(0);
    rows.ce = at::where(has_label, log_q.gather(1, label).squeeze(1).neg(),
                        at::zeros({}, log_q.options()));
    if (gradient) student_gradient.scatter_add_(1, label, chunk.ce_scale.neg().unsqueeze(1));
  }
  if (gradient) chunk.student.copy_(student_gradient);
  return rows;
}

LogitLossRows logit_loss(const LogitLossChunk& chunk, bool gradient) {
  if (!chunk.student.device().is_cpu()) return composed_logit_loss(chunk, gradient);
  LogitLossRows rows;
  kernels::LogitLossParams<float> p;
  p.rows = chunk.student.size(0);
  p.vocab = chunk.student.size(1);
  p.gradient = gradient;
  p.student = chunk.student.data_ptr<float>();
  if (chunk.teacher.defined()) {
    rows.kl = at::empty({p.rows}, at::kFloat);
    rows.agrees = at::empty({p.rows}, at::kByte);
    p.teacher = chunk.teacher.data_ptr<float>();
    p.kl_scale = chunk.kl_scale.const_data_ptr<float>();
    p.kl = rows.kl.data_ptr<float>();
    p.agrees = rows.agrees.data_ptr<uint8_t>();
  }
  if (chunk.labels.defined()) {
    rows.ce = at::empty({p.rows}, at::kFloat);
    p.labels = chunk.labels.const_data_ptr<int64_t>();
    p.ce_scale = chunk.ce_scale.const_data_ptr<float>();
    p.ce = rows.ce.data_ptr<float>();
  }
  kernels::logit_loss_cpu(p);
  return rows;
}

}  // namespace mambify
