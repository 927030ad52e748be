// mambify eval agreement.
#include <fmt/format.h>

#include <memory>

#include "eval/agreement.h"
#include "eval_verbs.h"

namespace mambify {
namespace {

struct AgreementVerbOptions {
  CommonOptions common;
  EvalDataOptions data;
  AgreementOptions measure;
  std::string model, teacher;
};

void run(const AgreementVerbOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  const Tokenizer tokenizer = Tokenizer::load(options.teacher);
  check_same_vocabulary(options.model, Tokenizer::load(options.model), options.teacher, tokenizer);
  const std::vector<Document> documents = read_eval_data(options.data, tokenizer);
  const Model student = load_compute_model(options.model, options.common);
  const Model teacher = load_compute_model(options.teacher, options.common);
  const AgreementResult result = agreement(student, teacher, documents, options.measure);
  if (options.common.json) {
    print_json({{"about", about_result("agreement", options.common, options.model, options.teacher,
                                       options.data.data)},
                {"kl", result.kl},
                {"kl_stderr", result.kl_error},
                {"top1", result.top1},
                {"top1_stderr", result.top1_error},
                {"tokens", result.tokens},
                {"greedy_match", result.greedy_match},
                {"greedy_match_stderr", result.greedy_match_error},
                {"greedy_tokens", options.measure.greedy_tokens},
                {"greedy_prompts", result.greedy_prompts}});
    return;
  }
  fmt::print("kl            {:.4f} +- {:.4f} nats per token, teacher to student\n", result.kl,
             result.kl_error);
  fmt::print("top1          {:.4f} +- {:.4f}\n", result.top1, result.top1_error);
  fmt::print("tokens        {}\n", result.tokens);
  fmt::print("greedy match  {:.2f} +- {:.2f} of {} tokens, {} prompts\n", result.greedy_match,
             result.greedy_match_error, options.measure.greedy_tokens, result.greedy_prompts);
}

}  // namespace

void add_eval_agreement(CLI::App& eval) {
  CLI::App* verb =
      eval.add_subcommand("agreement", "How close a student's predictions are to its teacher's");
  auto options = std::make_shared<AgreementVerbOptions>();
  AgreementOptions& measure = options->measure;
  add_model_option(*verb, "--model", options->model, "the student")->required();
  add_model_option(*verb, "--teacher", options->teacher, "the teacher")->required();
  add_eval_data_options(*verb, options->data);
  verb->add_option("--max-tokens", measure.max_tokens, "stop after so many tokens (0: all)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--greedy-prompts", measure.greedy_prompts,
                   "documents whose beginning both models continue greedily")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option("--greedy-tokens", measure.greedy_tokens, "how far they continue")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_common_options(*verb, options->common);
  verb->callback([options] { run(*options); });
}

}  // namespace mambify
