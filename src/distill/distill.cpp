// Stages distill, stepwise and sft: KL to the teacher and cross-entropy of the text, end to end.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include "distill/batch_tensors.h"
#include "distill/stages.h"
#include "distill/student_forward.h"
#include "ops/linear_kl.h"

namespace mambify {
namespace {

class Distill : public Objective {
 public:
  // teacher: null when kl_weight is 0.
  Distill(const Model* teacher, const Model& student, double kl_weight, double ce_weight,
          bool activation_checkpointing)
      : teacher_(teacher),
        student_(student),
        kl_weight_(kl_weight),
        ce_weight_(ce_weight),
        activation_checkpointing_(activation_checkpointing) {}

  double weight(const Batch& batch) const override { return batch.total_weight(); }

  LossTensors accumulate(const Batch& batch, double share) override {
    const at::Tensor ids = ids_of(batch, student_);
    if (batch.total_weight() == 0) return {};
    const auto options = student_.embedding.options();
    at::Tensor taught, teacher_weight;
    if (teacher_ != nullptr) {
      const at::NoGradGuard no_grad;
      taught =
          hidden_states(*teacher_, ids, make_context(teacher_->config, batch.segments, options));
      teacher_weight = teacher_->lm_head;
    }
    const Context context = make_context(student_.config, batch.segments, options);
    const at::Tensor learnt =
        student_hidden_states(student_, ids, context, activation_checkpointing_);
    const LinearKlResult result = linear_kl({.hidden = learnt,
                                             .weight = student_.lm_head,
                                             .teacher_hidden = taught,
                                             .teacher_weight = teacher_weight,
                                             .labels = labels_of(batch, student_),
                                             .mask = weights_of(batch, student_),
                                             .places = counted_places_of(batch, student_)},
                                            {.kl_weight = kl_weight_, .ce_weight = ce_weight_});
    (result.loss * share).backward();
    LossTensors losses;
    losses.total = result.loss.detach().to(at::kDouble);
    if (ce_weight_ > 0) losses.parts.ce = result.ce;
    if (kl_weight_ > 0) {
      losses.parts.kl = result.kl;
      losses.parts.agreement = result.agreed / static_cast<double>(result.counted);
    }
    return losses;
  }

 private:
  const Model* teacher_;
  const Model& student_;
  const double kl_weight_, ce_weight_;
  const bool activation_checkpointing_;
};

}  // namespace

std::unique_ptr<Objective> make_distill(const Model& teacher, const Model& student,
                                        const StageSection& stage, bool activation_checkpointing) {
  return std::make_unique<Distill>(stage.kl_weight > 0 ? &teacher : nullptr, student,
                                   stage.kl_weight, stage.ce_weight, activation_checkpointing);
}

std::unique_ptr<Objective> make_sft(const Model& student, bool activation_checkpointing) {
  return std::make_unique<Distill>(/*teacher=*/nullptr, student, /*kl_weight=*/0, /*ce_weight=*/1,
                                   activation_checkpointing);
}

}  // namespace mambify
