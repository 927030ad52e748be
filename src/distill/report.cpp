#include "distill/report.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <thread>

#include "distill/metrics.h"
#include "distill/summary.h"
#include "html/line_plot.h"
#include "html/page.h"

namespace mambify {
namespace {

struct PlotKind {
  const char* key;
  const char* title;
  bool logarithmic;
};
constexpr PlotKind kPlots[] = {
    {"loss", "loss", true},
    {"kl", "KL to the teacher (nats per token)", true},
    {"ce", "cross-entropy of the text (nats per token)", false},
    {"agreement", "top-1 agreement with the teacher", false},
    {"accuracy", "pairs whose chosen answer has the larger reward", false},
    {"margin", "reward of the chosen answer over the rejected one's", false},
    {"chosen_reward", "reward of the chosen answer", false},
    {"rejected_reward", "reward of the rejected answer", false},
    {"learning_rate", "learning rate of the mixers", false},
    {"gradient_norm", "gradient norm before clipping", true},
    {"tokens_per_second", "tokens per second", false},
};

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

double number_at(const nlohmann::json& line, const char* key) {
  const auto value = line.find(key);
  return value != line.end() && value->is_number() ? value->get<double>()
                                                   : std::numeric_limits<double>::quiet_NaN();
}

std::string plots_of(const std::vector<nlohmann::json>& lines) {
  std::vector<double> dividers;
  for (size_t i = 1; i < lines.size(); ++i) {
    if (lines[i]["round"] != lines[i - 1]["round"]) dividers.push_back(number_at(lines[i], "step"));
  }
  std::string text = "<div class=\"plots\">\n";
  for (const PlotKind& kind : kPlots) {
    Plot plot{kind.title, {}, {}, dividers, kind.logarithmic};
    for (const nlohmann::json& line : lines) {
      if (!line.contains(kind.key)) continue;
      plot.x.push_back(number_at(line, "step"));
      plot.y.push_back(number_at(line, kind.key));
    }
    if (!plot.x.empty()) text += svg(plot) + "\n";
  }
  return text + "</div>\n";
}

std::string optional_cell(const std::optional<double>& value) {
  return value ? fmt::format("{:.4f}", *value) : "";
}

std::string table_of(const RunSummary& summary) {
  std::string text =
      "<table><tr><th>stage</th><th>steps</th><th>tokens</th><th>minutes</th><th>first loss</th>"
      "<th>last loss</th><th>last KL</th><th>last agreement</th><th>last accuracy</th></tr>\n";
  for (const StageSummary& stage : summary.stages) {
    text += fmt::format(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.1f}</td><td>{:.4f}</td><td>{:.4f}</td>"
        "<td>{}</td><td>{}</td><td>{}</td></tr>\n",
        escaped(stage.kind), stage.steps, stage.tokens, stage.seconds / 60, stage.first_loss,
        stage.last_loss, optional_cell(stage.last.kl), optional_cell(stage.last.agreement),
        optional_cell(stage.last.accuracy));
  }
  return text + "</table>\n";
}

}  // namespace

void write_report(const Recipe& recipe, const fs::path& run) {
  const std::vector<nlohmann::json> lines = read_metrics(run / "metrics.jsonl");
  const int64_t skipped = lines.empty() ? 0 : lines.back().value("skipped", int64_t{0});
  const RunSummary summary = summarise(run, skipped);
  std::string html =
      fmt::format("<p>Teacher {}. {} steps, {} tokens, {} steps skipped.</p>\n",
                  escaped(recipe.model.teacher), summary.steps, summary.tokens, skipped);
  html += table_of(summary);

  std::map<int64_t, std::vector<nlohmann::json>> stages;
  for (const nlohmann::json& line : lines) stages[line.value("stage", int64_t{0})].push_back(line);
  for (const auto& [stage, stage_lines] : stages) {
    html += fmt::format("<h2>Stage {}: {}</h2>\n{}", stage + 1,
                        escaped(stage_lines.front().value("kind", "")), plots_of(stage_lines));
  }
  html += fmt::format(
      "<h2>Machine</h2>\n<p>{}, {} hardware threads, {} used; LibTorch {}.</p>\n<h2>Recipe</h2>\n"
      "<pre>{}</pre>\n",
      escaped(processor_name()), std::thread::hardware_concurrency(), at::get_num_threads(),
      TORCH_VERSION, escaped(recipe.text));
  write_file_atomically(run / "report.html", html_page("mambify distill: " + run.string(), html));
}

}  // namespace mambify
