// Runs a recipe: one loop for all stages, resumable at every checkpoint.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/file.h"
#include "data/dataset.h"
#include "data/pair_stream.h"
#include "distill/losses.h"
#include "distill/recipe.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace mambify {

struct RunOptions {
  // Goes on from the newest checkpoint of the recipe's folder; from the beginning when there is
  // none yet. Without it, a folder that already holds a run is an error.
  bool resume = false;
  // Where to compute: the CPU, or what load_torch_cuda gave.
  at::Device device = at::kCPU;
};

// A stage as metrics.jsonl tells it. Each loss is the mean over the first or the last few lines.
struct StageSummary {
  std::string kind;
  int64_t steps = 0;
  int64_t tokens = 0;
  double seconds = 0;
  double first_loss = 0, last_loss = 0;
  LossParts<std::optional<double>> last;
};

struct RunSummary {
  fs::path folder;
  fs::path final_model;  // folder / "final"
  int64_t steps = 0, tokens = 0, skipped = 0;
  std::vector<StageSummary> stages;
};

// What a run reads. The models are fp32, on the CPU; they are converted and moved by the run.
struct RunInputs {
  Model teacher;  // empty where no stage asks it and the student was given
  Model student;
  Dataset data;  // of [data]; empty where no stage reads it
  // Of the stages that read something else, by their index in the recipe: of a dpo stage pairs.
  std::map<int64_t, std::variant<Dataset, PairDataset>> stage_data;
  // Goes into final/ as well, unless empty.
  std::vector<TokenId> draft_vocabulary;
  std::optional<Tokenizer> tokenizer;  // goes into final/; absent: nothing is written there
};

// Reads everything a recipe names. Throws Error, also where the student's vocabulary is not the
// teacher's.
RunInputs load_inputs(const Recipe& recipe);

// Runs all stages. Throws Error when a file cannot be written, or when max_skipped steps in a row
// had a loss or gradient that is not finite; what has been checkpointed stays usable.
RunSummary train(const Recipe& recipe, RunInputs inputs, const RunOptions& options);

inline RunSummary run_recipe(const Recipe& recipe, const RunOptions& options) {
  return train(recipe, load_inputs(recipe), options);
}

}  // namespace mambify
