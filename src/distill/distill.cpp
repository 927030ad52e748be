// Stages distill and stepwise: KL to the teacher and cross-entropy of the text, end to end.
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
  Distill(const Model& teacher, const Model& student, const StageSection& stage,
          bool activation_checkpointing)
      : teacher_(teacher),
        student_(student),
        stage_(stage),
        activation_checkpointing_(activation_checkpointing) {}

  double weight(const Batch& batch) const override { return batch.total_weight(); }

  LossTensors accumulate(const Batch& batch, double share) override {
    const at::Tensor ids = ids_of(batch, student_);
    if (batch.total_weight() == 0) return {};
    const auto options = student_.embedding.options();
    at::Tensor taught, teacher_weight;
    if (stage_.kl_weight > 0) {
      const at::NoGradGuard no_grad;
      taught = hidden_states(teacher_, ids, make_context(teacher_.config, batch.segments, options));
      teacher_weight = teacher_.lm_head;
    }
    const Context context = make_context(student_.config, batch.segments, options);
    const at::Tensor learnt =
        student_hidden_states(student_, ids, context, activation_checkpointing_);
    const LinearKlResult result =
        linear_kl({.hidden = learnt,
                   .weight = student_.lm_head,
                   .teacher_hidden = taught,
                   .teacher_weight = teacher_weight,
                   .labels = labels_of(batch, student_),
                   .mask = weights_of(batch, student_),
                   .places = counted_places_of(batch, student_)},
                  {.kl_weight = stage_.kl_weight, .ce_weight = stage_.ce_weight});
    (result.loss * share).backward();
    LossTensors losses;
    losses.total = result.loss.detach().to(at::kDouble);
    if (stage_.ce_weight > 0) losses.ce = result.ce;
    if (stage_.kl_weight > 0) {
      losses.kl = result.kl;
      losses.agreement = result.agreed / static_cast<double>(result.counted);
    }
    return losses;
  }

 private:
  const Model& teacher_;
  const Model& student_;
  const StageSection& stage_;
  const bool activation_checkpointing_;
};

}  // namespace

std::unique_ptr<Objective> make_distill(const Model& teacher, const Model& student,
                                        const StageSection& stage, bool activation_checkpointing) {
  return std::make_unique<Distill>(teacher, student, stage, activation_checkpointing);
}

}  // namespace mambify
