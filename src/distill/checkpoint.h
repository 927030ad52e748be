// Everything a run needs to go on, in one folder that is there whole or not at all.
#pragma once

#include <cstdint>
#include <optional>

#include "core/file.h"
#include "distill/optimizer.h"
#include "model/model.h"

namespace mambify {

// Where a run stands. Random numbers are functions of (seed, position), so these are their state.
struct TrainingState {
  int64_t phase = 0;           // index into plan_phases
  int64_t phase_step = 0;      // steps done in it, skipped ones included
  double phase_seconds = 0;    // wall clock spent in it
  int64_t step = 0;            // steps done in the run
  int64_t tokens = 0;          // trained on in the run
  int64_t data_position = 0;   // where the stream of [data] goes on
  int64_t stage_position = 0;  // and that of a stage with files of its own
  int64_t skipped = 0;         // steps whose loss or gradient was not finite
  int64_t skipped_in_row = 0;
  int64_t metrics_bytes = 0;  // length of metrics.jsonl at this point
};

// Writes checkpoints/step-N of `run` (N = state.step) and then removes all but the newest two.
// student: fp32 master weights. optimizer: null between phases. Throws Error, the older
// checkpoints untouched, when anything cannot be written.
void save_checkpoint(const fs::path& run, const TrainingState& state, uint64_t fingerprint,
                     const Model& student, AdamW* optimizer);

struct Checkpointed {
  fs::path folder;
  TrainingState state;
};

// The newest complete checkpoint, nothing when there is none. Throws Error when it belongs to
// another recipe.
std::optional<Checkpointed> newest_checkpoint(const fs::path& run, uint64_t fingerprint);

Model load_student(const Checkpointed& checkpoint);
// Throws Error when a moment is missing or of another shape.
void load_optimizer(const Checkpointed& checkpoint, AdamW& optimizer);

}  // namespace mambify
