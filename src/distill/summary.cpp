#include "distill/summary.h"

#include <algorithm>

#include "distill/metrics.h"

namespace mambify {
namespace {

using Lines = std::vector<nlohmann::json>;

// Mean of a key over some lines; lines without a number there do not count.
std::optional<double> mean(const Lines& lines, size_t begin, size_t end, const char* key) {
  double sum = 0;
  int64_t count = 0;
  for (size_t i = begin; i < end; ++i) {
    const auto value = lines[i].find(key);
    if (value == lines[i].end() || !value->is_number()) continue;
    sum += value->get<double>();
    ++count;
  }
  if (count == 0) return std::nullopt;
  return sum / static_cast<double>(count);
}

StageSummary summarise_stage(const Lines& lines, size_t begin, size_t end) {
  constexpr size_t kFew = 5;
  const size_t few = std::min(kFew, end - begin);
  StageSummary summary;
  summary.kind = lines[begin].value("kind", "");
  const auto at = [&](size_t line, const char* key) { return lines[line].value(key, int64_t{0}); };
  const int64_t step_before = begin == 0 ? 0 : at(begin - 1, "step");
  const int64_t tokens_before = begin == 0 ? 0 : at(begin - 1, "tokens");
  summary.steps = at(end - 1, "step") - step_before;
  summary.tokens = at(end - 1, "tokens") - tokens_before;
  summary.seconds =
      mean(lines, begin, end, "seconds").value_or(0) * static_cast<double>(summary.steps);
  summary.first_loss = mean(lines, begin, begin + few, "loss").value_or(0);
  summary.last_loss = mean(lines, end - few, end, "loss").value_or(0);
  summary.last.for_each(summary.last, [&](const char* name, std::optional<double>& part) {
    part = mean(lines, end - few, end, name);
  });
  return summary;
}

}  // namespace

RunSummary summarise(const fs::path& run, int64_t skipped) {
  RunSummary summary;
  summary.folder = run;
  summary.final_model = run / "final";
  summary.skipped = skipped;
  const Lines lines = read_metrics(run / "metrics.jsonl");
  for (size_t begin = 0; begin < lines.size();) {
    size_t end = begin;
    while (end < lines.size() && lines[end]["stage"] == lines[begin]["stage"]) ++end;
    summary.stages.push_back(summarise_stage(lines, begin, end));
    summary.steps += summary.stages.back().steps;
    summary.tokens += summary.stages.back().tokens;
    begin = end;
  }
  return summary;
}

}  // namespace mambify
