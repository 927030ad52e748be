// Stage dpo: preference pairs, against a reference model that is not trained.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "distill/batch_tensors.h"
#include "distill/dpo_loss.h"
#include "distill/stages.h"
#include "distill/student_forward.h"
#include "ops/linear_log_probs.h"

namespace mambify {
namespace {

// How many tokens each document of a batch counts, [documents] int64.
at::Tensor counted_of_documents(const Batch& batch, const Model& model) {
  std::vector<int64_t> counted;
  const std::vector<int64_t>& starts = batch.segments.starts;
  for (size_t d = 0; d + 1 < starts.size(); ++d) {
    counted.push_back(std::count_if(batch.weights.begin() + starts[d],
                                    batch.weights.begin() + starts[d + 1],
                                    [](float weight) { return weight != 0; }));
  }
  return copied_to_device(counted, model);
}

class Dpo : public Objective {
 public:
  Dpo(const Model& reference, const Model& student, const StageSection& stage,
      bool activation_checkpointing)
      : reference_(reference),
        student_(student),
        beta_(stage.beta),
        label_smoothing_(stage.label_smoothing),
        activation_checkpointing_(activation_checkpointing) {}

  // The loss is a mean over pairs, however long their answers.
  double weight(const Batch& batch) const override {
    return static_cast<double>(batch.segments.documents()) / 2;
  }

  LossTensors accumulate(const Batch& batch, double share) override {
    const at::Tensor ids = ids_of(batch, student_);
    at::Tensor expected;
    {
      const at::NoGradGuard no_grad;
      const Context context =
          make_context(reference_.config, batch.segments, reference_.embedding.options());
      expected = answers(batch, reference_, hidden_states(reference_, ids, context));
    }
    const Context context =
        make_context(student_.config, batch.segments, student_.embedding.options());
    const at::AutoGradMode grad(true);
    const at::Tensor found = answers(
        batch, student_, student_hidden_states(student_, ids, context, activation_checkpointing_));
    const DpoLoss result = dpo_loss(found, expected, beta_, label_smoothing_);
    (result.loss * share).backward();

    LossTensors losses;
    losses.total = result.loss.detach();
    const at::Tensor chosen = result.chosen_reward.detach();
    const at::Tensor rejected = result.rejected_reward.detach();
    losses.parts.accuracy = chosen.gt(rejected).to(at::kDouble).mean();
    losses.parts.margin = (chosen - rejected).mean();
    losses.parts.chosen_reward = chosen.mean();
    losses.parts.rejected_reward = rejected.mean();
    return losses;
  }

 private:
  // Log-probabilities of the answers, [pairs, 2] fp64.
  static at::Tensor answers(const Batch& batch, const Model& model, const at::Tensor& hidden) {
    const at::Tensor log_probs = linear_log_probs({.hidden = hidden,
                                                   .weight = model.lm_head,
                                                   .labels = labels_of(batch, model),
                                                   .places = counted_places_of(batch, model)});
    // In fp64, because the difference of two long answers is small beside either; by segments,
    // because a scattered sum has no fixed order on a GPU; unsafe, because to check the lengths
    // the host would wait for it.
    return at::segment_reduce(log_probs.to(at::kDouble), "sum",
                              /*lengths=*/counted_of_documents(batch, model), /*indices=*/{},
                              /*offsets=*/{}, /*axis=*/0, /*unsafe=*/true)
        .view({-1, 2});
  }

  const Model& reference_;
  const Model& student_;
  const double beta_, label_smoothing_;
  const bool activation_checkpointing_;
};

}  // namespace

DpoLoss dpo_loss(const at::Tensor& student, const at::Tensor& reference, double beta,
                 double label_smoothing) {
  const at::Tensor rewards = beta * (student - reference);
  DpoLoss result;
  result.chosen_reward = rewards.select(1, 0);
  result.rejected_reward = rewards.select(1, 1);
  const at::Tensor margin = result.chosen_reward - result.rejected_reward;
  result.loss = -((1 - label_smoothing) * at::log_sigmoid(margin) +
                  label_smoothing * at::log_sigmoid(-margin))
                     .mean();
  return result;
}

std::unique_ptr<Objective> make_dpo(const Model& reference, const Model& student,
                                    const StageSection& stage, bool activation_checkpointing) {
  return std::make_unique<Dpo>(reference, student, stage, activation_checkpointing);
}

}  // namespace mambify
