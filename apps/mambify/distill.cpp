// mambify distill: trains a student by a recipe.
#include <fmt/format.h>

#include <memory>

#include "checkpoint_options.h"
#include "common_options.h"
#include "core/error.h"
#include "distill/trainer.h"
#include "verbs.h"

namespace mambify {
namespace {

using nlohmann::json;

struct DistillVerbOptions {
  CommonOptions common;
  std::string recipe;
  std::vector<std::string> overrides;
  bool resume = false;
  bool print_keys = false;
};

json describe(const RunSummary& summary) {
  json stages = json::array();
  for (const StageSummary& stage : summary.stages) {
    json entry = {{"kind", stage.kind},
                  {"steps", stage.steps},
                  {"tokens", stage.tokens},
                  {"seconds", stage.seconds},
                  {"first_loss", stage.first_loss},
                  {"last_loss", stage.last_loss}};
    stage.last.for_each(stage.last, [&](const std::string& name, const auto& part) {
      if (part) entry["last_" + name] = *part;
    });
    stages.push_back(std::move(entry));
  }
  return {{"folder", summary.folder.string()},
          {"final", summary.final_model.string()},
          {"report", (summary.folder / "report.html").string()},
          {"steps", summary.steps},
          {"tokens", summary.tokens},
          {"skipped", summary.skipped},
          {"stages", stages}};
}

void print_text(const RunSummary& summary) {
  for (const StageSummary& stage : summary.stages) {
    fmt::print("{:<9} {} steps, {} tokens, {:.1f} minutes, loss {:.4f} to {:.4f}", stage.kind,
               stage.steps, stage.tokens, stage.seconds / 60, stage.first_loss, stage.last_loss);
    if (stage.last.kl) fmt::print(", KL {:.4f}", *stage.last.kl);
    if (stage.last.agreement) fmt::print(", agreement {:.3f}", *stage.last.agreement);
    if (stage.last.accuracy) fmt::print(", accuracy {:.3f}", *stage.last.accuracy);
    if (stage.last.margin) fmt::print(", margin {:.4f}", *stage.last.margin);
    fmt::print("\n");
  }
  fmt::print("wrote {} and {}\n", summary.final_model.string(),
             (summary.folder / "report.html").string());
}

void run_distill(const DistillVerbOptions& options) {
  if (options.print_keys) {
    fmt::print("{}", recipe_reference());
    return;
  }
  if (options.recipe.empty()) throw UsageError("distill: a recipe is required");
  apply_common_options(options.common, Devices::cpu_or_cuda);
  const Recipe recipe = load_recipe(options.recipe, options.overrides);
  const RunSummary summary =
      run_recipe(recipe, {.resume = options.resume, .device = compute_device(options.common)});
  if (options.common.json) {
    print_json(describe(summary));
  } else {
    print_text(summary);
  }
}

}  // namespace

void add_distill(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("distill", "Train a student by a recipe (docs/distill.md)");
  auto options = std::make_shared<DistillVerbOptions>();
  verb->add_option("recipe", options->recipe, "TOML file of stages");
  verb->add_option("--set", options->overrides,
                   "override a key: stage.0.steps=100, run.dir=runs/b (may be repeated)")
      ->type_name("SECTION.KEY=VALUE")
      ->allow_extra_args(false);
  verb->add_flag("--resume", options->resume, "go on from the newest checkpoint of the run");
  verb->add_flag("--print-keys", options->print_keys, "list every key of a recipe, and stop");
  // Seed, compute type and the rest are the recipe's: a run is what its recipe says.
  verb->add_option("--device", options->common.device, "where to compute: cpu, cuda or cuda:N")
      ->capture_default_str();
  verb->add_option("--threads", options->common.threads, "processor threads (default: all cores)")
      ->check(CLI::Range(1, 1024));
  verb->add_flag("--json", options->common.json, "print exactly one JSON object on stdout");
  verb->callback([options] { run_distill(*options); });
}

}  // namespace mambify
