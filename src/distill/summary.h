// A run's stages as its metrics.jsonl tells them.
#pragma once

#include "distill/trainer.h"

namespace mambify {

RunSummary summarise(const fs::path& run, int64_t skipped);

}  // namespace mambify
