// mambify eval needle.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "core/error.h"
#include "decoding_options.h"
#include "distill/recipe.h"
#include "eval/needle/needle.h"
#include "eval/needle/needle_result.h"
#include "eval/report/report.h"
#include "eval_verbs.h"

namespace mambify {
namespace {

using nlohmann::json;

struct NeedleVerbOptions {
  CommonOptions common;
  NeedleOptions measure;
  std::string model, teacher, haystack_file, chat_template, html;
  std::string weights = "native";
  int64_t training_length = 0;  // 0: as the run's recipe says
  int64_t candidates = 10;
  bool plain = false, likelihood = false;
};

// Of the run that wrote RUN/final or RUN/checkpoints/step-N/model, the length of its documents;
// without a recipe there, that of a recipe that does not say.
int64_t training_length_of(const fs::path& model) {
  fs::path folder = fs::absolute(model).lexically_normal();
  if (folder.filename().empty()) folder = folder.parent_path();
  for (int up = 0; up < 3; ++up) {
    folder = folder.parent_path();
    if (!fs::exists(folder / "recipe.toml") || !fs::exists(folder / "metrics.jsonl")) continue;
    return load_recipe((folder / "recipe.toml").string()).data.sequence_length;
  }
  return DataSection{}.sequence_length;
}

// Up to 20 times the training length, as in the paper.
std::vector<int64_t> default_lengths(int64_t training_length) {
  std::vector<int64_t> lengths;
  for (const double factor : {0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 20.0}) {
    lengths.push_back(std::llround(factor * static_cast<double>(training_length)));
  }
  return lengths;
}

json measure(const std::string& path, const std::string& who, const Haystack& haystack,
             const NeedleVerbOptions& options) {
  const LoadedModel loaded(path, options.common);
  const int64_t max_positions = loaded.model.config.max_positions;
  for (const int64_t length : options.measure.lengths) {
    if (max_positions == 0 || length <= max_positions) continue;
    spdlog::warn("{}: lengths from {} on are beyond its {} positions; rotary embedding goes on",
                 path, length, max_positions);
    break;
  }
  std::optional<ChatTemplate> chat;
  if (!options.plain) chat = loaded.chat_template(options.chat_template);
  const PackedWeights packed = pack_weights(loaded.model, options.weights, options.common);
  const std::vector<NeedleCell> cells =
      run_needle({.model = loaded.model,
                  .packed = packed,
                  .tokenizer = loaded.tokenizer,
                  .chat = chat ? &*chat : nullptr,
                  .stop_ids = loaded.stop_ids(chat ? &*chat : nullptr),
                  .name = who},
                 haystack, options.measure);
  return to_json(cells, {.training_length = options.training_length,
                         .max_positions = max_positions,
                         .likelihood = options.likelihood});
}

void print_rates(const char* what, const json& rates) {
  if (rates["n"] == 0) return;
  fmt::print("  {:<22} {:.3f} +- {:.3f} ({} of {})", what, rates["rate"].get<double>(),
             rates["stderr"].get<double>(), rates["hits"].get<int64_t>(),
             rates["n"].get<int64_t>());
  if (rates.contains("ranked_first")) {
    fmt::print("   likeliest {:.3f} +- {:.3f}   nll {:.2f}", rates["ranked_first"].get<double>(),
               rates["ranked_first_stderr"].get<double>(), rates["key_nll"].get<double>());
  }
  fmt::print("\n");
}

// Rates in percent, depths down and lengths across.
void print_table(const char* who, const json& result, const NeedleOptions& options) {
  fmt::print("{}: keys found, in percent\n  depth", who);
  for (const int64_t length : options.lengths) fmt::print(" {:>7}", length);
  for (size_t d = 0; d < options.depths.size(); ++d) {
    fmt::print("\n  {:5.2f}", options.depths[d]);
    for (size_t l = 0; l < options.lengths.size(); ++l) {
      const json& cell = result["cells"][l * options.depths.size() + d];
      fmt::print(" {:>7}", cell["n"] == 0
                               ? std::string("-")
                               : fmt::format("{:.0f}", 100 * cell["rate"].get<double>()));
    }
  }
  fmt::print("\n");
  print_rates("all", result["overall"]);
  print_rates("up to training length", result["within_training_length"]);
  print_rates("beyond it", result["beyond_training_length"]);
}

template <typename T>
void sort_without_repeats(std::vector<T>& values) {
  std::ranges::sort(values);
  const auto repeats = std::ranges::unique(values);
  values.erase(repeats.begin(), repeats.end());
}

// Before hours of work rather than behind them.
void check_folder_of(const std::string& file) {
  if (file.empty()) return;
  const fs::path folder = fs::absolute(file).parent_path();
  if (fs::is_directory(folder)) return;
  throw Error("--html {}: there is no folder {}", file, folder.string());
}

void run(NeedleVerbOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  options.measure.seed = options.common.seed;
  options.measure.candidates = options.likelihood ? options.candidates : 0;
  if (options.training_length == 0) options.training_length = training_length_of(options.model);
  if (options.measure.lengths.empty()) {
    options.measure.lengths = default_lengths(options.training_length);
  }
  sort_without_repeats(options.measure.lengths);
  sort_without_repeats(options.measure.depths);
  const Haystack haystack =
      options.haystack_file.empty()
          ? Haystack()
          : Haystack(read_text_file(options.haystack_file), options.haystack_file);
  check_folder_of(options.html);
  json result = measure(options.model, "needle", haystack, options);
  if (result["overall"]["n"] == 0) {
    throw Error("{}: {}", options.model, result["cells"][0]["error"].get<std::string>());
  }
  if (!options.teacher.empty()) {
    result["teacher"] = measure(options.teacher, "needle, teacher", haystack, options);
  }
  result["about"] =
      about_result("needle", options.common, options.model, options.teacher, options.haystack_file);
  result["lengths"] = options.measure.lengths;
  result["depths"] = options.measure.depths;
  result["trials"] = options.measure.trials;
  result["key_digits"] = options.measure.key_digits;
  result["training_length"] = options.training_length;
  result["prompt"] = options.plain ? "plain" : "chat";
  if (options.likelihood) result["candidates"] = options.candidates;
  if (!options.html.empty()) {
    write_file_atomically(options.html,
                          report_page({{options.html, result}}, "mambify eval needle"));
  }
  if (options.common.json) {
    print_json(result);
    return;
  }
  print_table("model", result, options.measure);
  if (result.contains("teacher")) print_table("teacher", result["teacher"], options.measure);
}

}  // namespace

void add_eval_needle(CLI::App& eval) {
  CLI::App* verb = eval.add_subcommand(
      "needle", "Whether a model finds a pass key in a long text, by length and depth");
  auto options = std::make_shared<NeedleVerbOptions>();
  NeedleOptions& measure = options->measure;
  measure.depths = {0, 0.25, 0.5, 0.75, 1};
  add_model_option(*verb, "--model", options->model, "the model")->required();
  add_model_option(*verb, "--teacher", options->teacher, "another model to ask the same");
  verb->add_option("--lengths", measure.lengths,
                   "tokens of the prompts, such as 512,1024,4096 (default: half of the training "
                   "length to 20 times it). Lengths beyond a model's positions are measured, too")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  verb->add_option("--depths", measure.depths,
                   "where the needle stands, from 0, the beginning, to 1, the end")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb->add_option("--trials", measure.trials,
                   "questions of each length and depth, with other keys and other text")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  verb->add_option("--training-length", options->training_length,
                   "longest document that the student was trained on, which rates are told up to "
                   "(default: as the recipe in the folder of its run says, else 512)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--haystack-file", options->haystack_file,
                   "plain text to hide the key in (default: short neutral sentences)");
  verb->add_flag("--plain", options->plain,
                 "ask in plain text, not as a user in the model's chat template");
  add_chat_template_option(*verb, options->chat_template);
  verb->add_option("--key-digits", measure.key_digits, "length of a key; shorter ones are easier")
      ->check(CLI::Range(2, 9))
      ->capture_default_str();
  auto* likelihood = verb->add_flag(
      "--likelihood", options->likelihood,
      "also tell how often the right key is the likeliest of several, and how likely it is: shows "
      "what a small model has kept when it cannot say the key. Reads every prompt twice");
  verb->add_option("--candidates", options->candidates, "how many keys are compared")
      ->check(CLI::Range(2, 50))
      ->capture_default_str()
      ->needs(likelihood);
  verb->add_option("--batch", measure.batch,
                   "prompts read side by side; fewer where they do not fit into memory")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  verb->add_option("--html", options->html, "write a heat map into this file");
  add_weights_option(*verb, options->weights);
  add_common_options(*verb, options->common);
  verb->callback([options] { run(*options); });
}

}  // namespace mambify
