// Perplexity, agreement with the teacher and needle rates in one table.
#include <fmt/format.h>

#include "eval/report/model_table.h"

namespace mambify {
namespace {

std::string behind(const std::string& metric, const std::string& data) {
  return data.empty() ? metric : metric + ", " + data;
}

void add_perplexity(const ResultReader& result, ModelTable& table) {
  const std::string column = behind("perplexity", result.data());
  table.set(result.model(), column, value_cell(result.body(), "perplexity", 2));
  if (const auto teacher = result.teacher_body()) {
    table.set(result.teacher(), column, value_cell(*teacher, "perplexity", 2));
  }
}

void add_agreement(const ResultReader& result, ModelTable& table) {
  table.set(result.model(), behind("KL to the teacher", result.data()),
            value_cell(result.body(), "kl", 4));
  table.set(result.model(), behind("top-1 agreement", result.data()),
            value_cell(result.body(), "top1", 3));
  table.set(result.model(), behind("greedy match", result.data()),
            value_cell(result.body(), "greedy_match", 1));
}

void add_needle(const ResultReader& result, ModelTable& table) {
  const auto length = result.body().require<int64_t>("training_length");
  const auto add = [&](const std::string& model, const JsonReader& body) {
    for (const auto& [key, column] :
         {std::pair{"within_training_length", fmt::format("needle, up to {} tokens", length)},
          std::pair{"beyond_training_length", fmt::format("needle, beyond {} tokens", length)}}) {
      const JsonReader rates = body.object(key);
      const auto rate = rates.find<double>("rate"), error = rates.find<double>("stderr");
      if (!rate || !error) continue;  // no trial
      table.set(model, column,
                fmt::format("{:.3f} <span class=\"error\">± {:.3f}</span>", *rate, *error));
    }
  };
  add(result.model(), result.body());
  if (const auto teacher = result.teacher_body()) add(result.teacher(), *teacher);
}

}  // namespace

std::string overview_section(const std::vector<EvalResult>& results, const ModelNames& names) {
  ModelTable table;
  for (const EvalResult& one : results) {
    const ResultReader result(one);
    if (result.kind() == "perplexity") add_perplexity(result, table);
    if (result.kind() == "agreement") add_agreement(result, table);
    if (result.kind() == "needle") add_needle(result, table);
  }
  const std::string html = table.html(names);
  if (html.empty()) return "";
  return "<h2>Models</h2>\n<p>± is one standard error. KL is in nats per token, the greedy match "
         "in "
         "tokens; needle tells the share of pass keys found.</p>\n" +
         html;
}

}  // namespace mambify
