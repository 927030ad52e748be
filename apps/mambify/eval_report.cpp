// mambify eval report.
#include <spdlog/spdlog.h>

#include <memory>

#include "eval/report/report.h"
#include "eval_verbs.h"

namespace mambify {
namespace {

struct ReportVerbOptions {
  std::vector<std::string> files;
  std::string out, title = "mambify eval";
};

void run(const ReportVerbOptions& options) {
  std::vector<EvalResult> results;
  for (const std::string& file : options.files) results.push_back(read_eval_result(file));
  write_file_atomically(options.out, report_page(results, options.title));
  spdlog::info("{}: {} results", options.out, results.size());
}

}  // namespace

void add_eval_report(CLI::App& eval) {
  CLI::App* verb = eval.add_subcommand(
      "report", "One HTML page that puts results of a teacher and its students side by side");
  auto options = std::make_shared<ReportVerbOptions>();
  verb->add_option(
          "results", options->files,
          "files with what eval perplexity, agreement, tasks, needle or sensitivity printed "
          "with --json")
      ->required();
  verb->add_option("--out", options->out, "the page to write; it needs no other file")->required();
  verb->add_option("--title", options->title, "its heading")->capture_default_str();
  verb->callback([options] { run(*options); });
}

}  // namespace mambify
