// mambify eval perplexity.
#include <fmt/format.h>

#include <memory>

#include "eval/perplexity.h"
#include "eval_verbs.h"

namespace mambify {
namespace {

using nlohmann::json;

struct PerplexityVerbOptions {
  CommonOptions common;
  PerplexityOptions measure;
  std::string model, teacher, text_file;
};

PerplexityResult measure(const std::string& path, const std::string& text,
                         const PerplexityVerbOptions& options) {
  const std::vector<TokenId> ids = Tokenizer::load(path).encode_prompt(text);
  const Model model = load_compute_model(path, options.common);
  return perplexity(model, ids, options.measure);
}

json describe(const PerplexityResult& result) {
  return {{"perplexity", result.perplexity},
          {"perplexity_stderr", result.perplexity * result.mean_nll_error},
          {"mean_nll", result.mean_nll},
          {"mean_nll_stderr", result.mean_nll_error},
          {"tokens", result.tokens},
          {"windows", result.windows}};
}

void print_row(const char* who, const json& row) {
  fmt::print("{:<8} {:>12.4f} {:>10.4f} {:>8} {:>8}\n", who, row["perplexity"].get<double>(),
             row["mean_nll"].get<double>(), row["tokens"].get<int64_t>(),
             row["windows"].get<int64_t>());
}

void run(const PerplexityVerbOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  const std::string text = read_text_file(options.text_file);
  json result = describe(measure(options.model, text, options));
  if (!options.teacher.empty())
    result["teacher"] = describe(measure(options.teacher, text, options));
  result["about"] =
      about_result("perplexity", options.common, options.model, options.teacher, options.text_file);
  if (options.common.json) {
    print_json(result);
    return;
  }
  fmt::print("{:<8} {:>12} {:>10} {:>8} {:>8}\n", "", "perplexity", "nll", "tokens", "windows");
  print_row("model", result);
  if (result.contains("teacher")) print_row("teacher", result["teacher"]);
}

}  // namespace

void add_eval_perplexity(CLI::App& eval) {
  CLI::App* verb = eval.add_subcommand("perplexity", "How well a model predicts plain text");
  auto options = std::make_shared<PerplexityVerbOptions>();
  add_model_option(*verb, "--model", options->model, "the model")->required();
  add_model_option(*verb, "--teacher", options->teacher, "another model to measure beside it");
  verb->add_option("--text-file", options->text_file, "plain text")->required();
  verb->add_option("--window", options->measure.window, "tokens of a window")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20))
      ->capture_default_str();
  verb->add_option("--max-windows", options->measure.max_windows, "stop after so many (0: all)")
      ->check(CLI::NonNegativeNumber);
  add_common_options(*verb, options->common);
  verb->callback([options] { run(*options); });
}

}  // namespace mambify
