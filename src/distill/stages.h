// What the stages of a recipe differ in: how they are cut into phases, and their loss.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "convert/convert.h"
#include "data/packing.h"
#include "distill/recipe.h"
#include "model/model.h"

namespace mambify {

// A stretch of training with one set of parameters and one optimizer: a whole stage, or one round
// of a stepwise stage.
struct Phase {
  int64_t stage = 0;  // index in the recipe
  int64_t round = 0;
  int64_t steps = 0;   // limit in steps, or
  double seconds = 0;  // in wall clock
  // Layers that have attention in this phase: others are converted now if they have not been yet.
  // Without a value nothing is converted.
  std::optional<std::vector<int64_t>> keep_attention;
};

// Phases of the whole recipe, in order. n_layer: of the student.
std::vector<Phase> plan_phases(const Recipe& recipe, int64_t n_layer);

// Means per token in nats; what a stage does not compute stays without a value.
struct Losses {
  double total = 0;  // what is minimised
  std::optional<double> kl, ce, agreement;
  std::vector<double> layers;  // align: relative squared error per converted layer
};

// The same where they were computed: a step leaves them there, since reading one makes the host
// wait for a CUDA device. Scalars in fp64; undefined where a stage has none.
struct LossTensors {
  at::Tensor total, kl, ce, agreement;
  at::Tensor layers;  // [n]

  // Adds share times the other's values.
  void add(const LossTensors& other, double share);
  Losses read() const;
};

class Objective {
 public:
  virtual ~Objective() = default;
  // What a part of a step counts for: its tokens under the loss.
  virtual double weight(const Batch& batch) const = 0;
  // The losses of one part; adds the gradient of share * total to the student's parameters.
  virtual LossTensors accumulate(const Batch& batch, double share) = 0;
};

// Both models must outlive the objective. The teacher's parameters require no gradient.
std::unique_ptr<Objective> make_align(const Model& teacher, const Model& student);
std::unique_ptr<Objective> make_distill(const Model& teacher, const Model& student,
                                        const StageSection& stage, bool activation_checkpointing);

// "1/4", "3,7,11" or "none", with the layer choice of [model]. key: for messages.
std::vector<int64_t> kept_layers(const std::string& keep_attention, const ModelSection& model,
                                 int64_t n_layer, const std::string& key);

// The student's conversion as [model] describes it, keeping the given layers.
ConvertOptions conversion(const Recipe& recipe, std::vector<int64_t> keep_attention);

}  // namespace mambify
