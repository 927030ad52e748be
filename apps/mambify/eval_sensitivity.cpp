// mambify eval sensitivity.
#include <fmt/format.h>

#include <memory>

#include "convert/convert.h"
#include "core/error.h"
#include "eval/sensitivity.h"
#include "eval_verbs.h"

namespace mambify {
namespace {

using nlohmann::json;

struct SensitivityVerbOptions {
  CommonOptions common;
  EvalDataOptions data;
  SensitivityOptions measure;
  std::string teacher, student, out;
  std::string mixer = "mamba2", init = "attention", start = "published";
  bool keep_rotary = false;
};

// A trained student, or the teacher with every attention layer freshly converted.
Model converted_model(const Model& teacher, const SensitivityVerbOptions& options) {
  if (!options.student.empty()) {
    return load_compute_model(options.student, options.common);
  }
  ConvertOptions convert_options;
  convert_options.mixer = parse_mixer_kind(options.mixer);
  convert_options.init = parse_mixer_init(options.init);
  convert_options.start = parse_mixer_start(options.start);
  convert_options.keep_rotary = options.keep_rotary;
  convert_options.seed = options.common.seed;
  Model converted = teacher;
  to(converted, at::kCPU, at::kFloat);
  convert_in_place(converted, convert_options);
  to(converted, teacher.embedding.device(), teacher.embedding.scalar_type());
  return converted;
}

void print_text(const SensitivityResult& result) {
  fmt::print("KL to the teacher in nats per token, over {} tokens\n", result.tokens);
  fmt::print("{:>6} {:>12}\n", "layer", "alone");
  for (const LayerKl& one : result.alone) fmt::print("{:>6} {:>12.5f}\n", one.layer, one.kl);
  fmt::print("\n{:>6} {:>6} {:>12}\n", "count", "layer", "together");
  for (size_t i = 0; i < result.order.size(); ++i) {
    fmt::print("{:>6} {:>6} {:>12.5f}\n", i + 1, result.order[i].layer, result.order[i].kl);
  }
}

void run(const SensitivityVerbOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  const Tokenizer tokenizer = Tokenizer::load(options.teacher);
  const std::vector<Document> documents = read_eval_data(options.data, tokenizer);
  const Model teacher = load_compute_model(options.teacher, options.common);
  const Model converted = converted_model(teacher, options);
  const SensitivityResult result = sensitivity(teacher, converted, documents, options.measure);
  json summary = to_json(result);
  summary["about"] = about_result("sensitivity", options.common, options.student, options.teacher,
                                  options.data.data);
  if (!options.out.empty()) write_file_atomically(options.out, summary.dump(2) + "\n");
  if (options.common.json) {
    print_json(summary);
  } else {
    print_text(result);
  }
}

}  // namespace

void add_eval_sensitivity(CLI::App& eval) {
  CLI::App* verb = eval.add_subcommand(
      "sensitivity", "How much KL rises as layers are converted, one by one and greedily in sets");
  auto options = std::make_shared<SensitivityVerbOptions>();
  add_model_option(*verb, "--teacher", options->teacher, "the Transformer")->required();
  auto* student = add_model_option(*verb, "--student", options->student,
                                   "take the mixers of this student, after align for instance "
                                   "(default: convert the teacher afresh)");
  verb->add_option("--out", options->out, "write the JSON that convert --layer-choice reads");
  add_eval_data_options(*verb, options->data);
  verb->add_option("--max-tokens", options->measure.max_tokens,
                   "stop after so many tokens (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option("--candidates", options->measure.candidates,
                   "layers tried in each greedy step, the cheapest alone first (0: all)")
      ->check(CLI::NonNegativeNumber);
  for (CLI::Option* option :
       {verb->add_option("--mixer", options->mixer, "mamba2 or mamba1")->capture_default_str(),
        verb->add_option("--init", options->init, "attention or random")->capture_default_str(),
        verb->add_option("--start", options->start, "published or neutral")->capture_default_str(),
        verb->add_flag("--keep-rotary", options->keep_rotary,
                       "keep rotary embedding on B and C (mamba2)")}) {
    option->excludes(student);
  }
  add_common_options(*verb, options->common);
  verb->callback([options] { run(*options); });
}

}  // namespace mambify
