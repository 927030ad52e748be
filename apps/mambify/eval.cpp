// mambify eval: one sub-verb per measurement.
#include "eval_verbs.h"
#include "verbs.h"

namespace mambify {

void add_eval(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("eval", "Measure a model, beside its teacher");
  verb->require_subcommand(1);
  add_eval_perplexity(*verb);
  add_eval_agreement(*verb);
  add_eval_tasks(*verb);
  add_eval_answers(*verb);
  add_eval_sensitivity(*verb);
  add_eval_needle(*verb);
  add_eval_report(*verb);
}

}  // namespace mambify
