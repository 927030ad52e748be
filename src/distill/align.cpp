// Stage align: each new mixer, fed the teacher's own hidden state, fits the output of the attention
// it replaces. Layers do not depend on each other, so each one's graph is gone before the next.
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "distill/batch_tensors.h"
#include "distill/stages.h"
#include "ops/rms_norm.h"

namespace mambify {
namespace {

class Align : public Objective {
 public:
  Align(const Model& teacher, const Model& student) : teacher_(teacher), student_(student) {
    if (teacher.config.n_layer() != student.config.n_layer() ||
        teacher.config.d_model != student.config.d_model) {
      throw Error(
          "align: the teacher has {} layers of width {}, the student {} of {}; they must "
          "have the same",
          teacher.config.n_layer(), teacher.config.d_model, student.config.n_layer(),
          student.config.d_model);
    }
    for (int64_t layer = 0; layer < student.config.n_layer(); ++layer) {
      aligned_.push_back(is_aligned(layer));
      if (aligned_.back()) last_ = layer;
    }
    if (last_ < 0) {
      throw Error(
          "align: no layer is a Mamba layer to train in the student and attention in the "
          "teacher");
    }
  }

  // The teacher's attention is defined at every token, whoever wrote it.
  double weight(const Batch& batch) const override { return static_cast<double>(batch.tokens()); }

  LossTensors accumulate(const Batch& batch, double share) override {
    const at::NoGradGuard no_grad;
    const auto options = teacher_.embedding.options();
    const Context taught = make_context(teacher_.config, batch.segments, options);
    const Context learnt = make_context(student_.config, batch.segments, options);
    std::vector<at::Tensor> missed;
    at::Tensor x = embed(teacher_, ids_of(batch, teacher_));
    for (int64_t layer = 0; layer <= last_; ++layer) {
      const Block& block = teacher_.blocks[layer];
      const at::Tensor u = rms_norm(x, block.input_norm, teacher_.config.norm_eps);
      const at::Tensor target = forward(teacher_.config, block.mixer, u, taught, nullptr);
      if (aligned_[layer]) {
        missed.push_back(fit(student_.blocks[layer].mixer, u, target, learnt, share));
      }
      if (layer < last_) x = mlp_forward(teacher_, layer, x + target);
    }
    LossTensors losses;
    losses.layers = at::stack(missed).to(at::kDouble);
    losses.total = losses.layers.sum();
    return losses;
  }

 private:
  bool is_aligned(int64_t layer) const {
    return kind_of(student_.blocks[layer].mixer) != MixerKind::attention &&
           kind_of(teacher_.blocks[layer].mixer) == MixerKind::attention && is_trained(layer);
  }

  bool is_trained(int64_t layer) const {
    Model block = student_;  // handles
    block.blocks = {student_.blocks[layer]};
    bool trained = false;
    for_each_parameter(block, [&](const std::string& name, at::Tensor& tensor) {
      trained = trained || (name.starts_with("blocks.0.mixer.") && tensor.requires_grad());
    });
    return trained;
  }

  // Squared error over the target's mean square: the share of the attention's output missed.
  at::Tensor fit(const Mixer& mixer, const at::Tensor& u, const at::Tensor& target,
                 const Context& context, double share) const {
    const at::Tensor wanted = target.to(at::kFloat);
    const at::Tensor scale = wanted.square().mean().clamp_min(1e-12);
    const at::AutoGradMode grad(true);
    const at::Tensor made = forward(student_.config, mixer, u, context, nullptr);
    const at::Tensor loss = (made.to(at::kFloat) - wanted).square().mean() / scale;
    (loss * share).backward();
    return loss.detach();
  }

  const Model& teacher_;
  const Model& student_;
  std::vector<bool> aligned_;  // per layer
  int64_t last_ = -1;
};

}  // namespace

std::unique_ptr<Objective> make_align(const Model& teacher, const Model& student) {
  return std::make_unique<Align>(teacher, student);
}

}  // namespace mambify
