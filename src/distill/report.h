// report.html: a run at a glance, one file that needs nothing else.
#pragma once

#include "core/file.h"
#include "distill/recipe.h"

namespace mambify {

// Plots of every stage from the run's metrics.jsonl, its recipe and the machine, written
// atomically into the run's folder.
void write_report(const Recipe& recipe, const fs::path& run);

}  // namespace mambify
