// What the stages of a recipe differ in: how they are cut into phases, and their loss.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "convert/convert.h"
#include "data/batch.h"
#include "distill/losses.h"
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
  // Layers that have attention in this phase: others are converted as it begins if they have not
  // been yet. Without a value nothing is converted.
  std::optional<std::vector<int64_t>> keep_attention;
  std::vector<int64_t> newest;  // layers that the last conversion up to here has made Mamba layers
};

// Phases of the whole recipe, in order. layers: the student's before the first one. Throws Error
// where layers cannot be kept: of a stepwise stage they may be Mamba layers, which are lent
// attention; of others they have it.
std::vector<Phase> plan_phases(const Recipe& recipe, const std::vector<MixerKind>& layers);

class Objective {
 public:
  virtual ~Objective() = default;
  // What a part of a step counts for: its tokens under the loss, or its pairs.
  virtual double weight(const Batch& batch) const = 0;
  // The losses of one part; adds the gradient of share * total to the student's parameters.
  virtual LossTensors accumulate(const Batch& batch, double share) = 0;
};

// Both models must outlive the objective. The teacher's parameters require no gradient.
std::unique_ptr<Objective> make_align(const Model& teacher, const Model& student);
std::unique_ptr<Objective> make_distill(const Model& teacher, const Model& student,
                                        const StageSection& stage, bool activation_checkpointing);
std::unique_ptr<Objective> make_sft(const Model& student, bool activation_checkpointing);
// Batches of a PairStream. The reference's parameters require no gradient, either.
std::unique_ptr<Objective> make_dpo(const Model& reference, const Model& student,
                                    const StageSection& stage, bool activation_checkpointing);

// Whether a stage asks the teacher anything.
bool needs_teacher(const StageSection& stage);

// "1/4", "3,7,11" or "none", with the layer choice of [model]. key: for messages.
std::vector<int64_t> kept_layers(const std::string& keep_attention, const ModelSection& model,
                                 int64_t n_layer, const std::string& key);

// The student's conversion as [model] describes it, keeping the given layers.
ConvertOptions conversion(const Recipe& recipe, const ModelConfig& model,
                          std::vector<int64_t> keep_attention);

}  // namespace mambify
