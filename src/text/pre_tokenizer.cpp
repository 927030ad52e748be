#include "text/pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/error.h"
#include "io/json_reader.h"
#include "text/unicode_additions.h"
#include "text/utf8.h"

namespace mambify {
namespace {

// GPT-2's own expression, which ByteLevel applies where `use_regex` is not false.
constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string quoted_literal(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (std::string_view(R"(\^$.|?*+()[]{})").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace

PreTokenizer::PreTokenizer(const nlohmann::json& description, const std::string& origin) {
  if (description.is_null()) {
    throw Error("{}: there is no pre_tokenizer; only byte-level BPE is supported", origin);
  }
  const JsonReader reader(description, origin + ": pre_tokenizer");
  if (reader.require<std::string>("type") != "Sequence") {
    add(description, reader.origin(), /*last=*/true);
    return;
  }
  if (!reader.has("pretokenizers") || !description["pretokenizers"].is_array() ||
      description["pretokenizers"].empty()) {
    throw Error("{}: a Sequence needs a list `pretokenizers` of at least one", reader.origin());
  }
  const nlohmann::json& list = description["pretokenizers"];
  for (size_t i = 0; i < list.size(); ++i) {
    add(list[i], fmt::format("{}[{}]", reader.origin(), i), i + 1 == list.size());
  }
}

void PreTokenizer::add(const nlohmann::json& description, const std::string& origin, bool last) {
  const JsonReader reader(description, origin);
  const auto type = reader.require<std::string>("type");
  // ByteLevel turns bytes into its alphabet, after which other expressions would see other text.
  if (last != (type == "ByteLevel")) {
    throw Error("{}: found {}; expected {}", origin, type,
                last ? "ByteLevel at the end: only byte-level BPE is supported"
                     : "Split or Digits before the ByteLevel at the end");
  }
  if (type == "ByteLevel") {
    Step step;
    step.prefix_space = reader.get("add_prefix_space", true);
    if (reader.get("use_regex", true)) step.pattern.emplace_back(kGpt2Pattern, origin);
    if (step.prefix_space || !step.pattern.empty()) steps_.push_back(std::move(step));
  } else if (type == "Digits") {
    Step step;
    const bool each = reader.get("individual_digits", false);
    step.pattern.push_back(UnicodeRegex::raw(
        fmt::format("[\\p{{N}}{}]{}", unicode_numeric_additions(), each ? "" : "+"), origin));
    steps_.push_back(std::move(step));
  } else if (type == "Split") {
    steps_.push_back(read_split(description, origin));
  } else {
    throw Error("{}: found {}; supported are ByteLevel, Digits, Split and a Sequence of them",
                origin, type);
  }
}

PreTokenizer::Step PreTokenizer::read_split(const nlohmann::json& description,
                                            const std::string& origin) const {
  constexpr std::array<std::pair<std::string_view, Behavior>, 5> kBehaviors = {{
      {"Removed", Behavior::removed},
      {"Isolated", Behavior::isolated},
      {"MergedWithPrevious", Behavior::merged_with_previous},
      {"MergedWithNext", Behavior::merged_with_next},
      {"Contiguous", Behavior::contiguous},
  }};
  const JsonReader reader(description, origin);
  Step step;
  const JsonReader pattern = reader.object("pattern");
  if (pattern.has("Regex")) {
    step.pattern.emplace_back(pattern.require<std::string>("Regex"), origin);
  } else {
    step.pattern.emplace_back(quoted_literal(pattern.require<std::string>("String")), origin);
  }
  const auto name = reader.require<std::string>("behavior");
  const auto* behavior = std::find_if(kBehaviors.begin(), kBehaviors.end(),
                                      [&](const auto& entry) { return entry.first == name; });
  if (behavior == kBehaviors.end()) {
    throw Error(
        "{}: behavior is \"{}\"; expected Removed, Isolated, MergedWithPrevious, "
        "MergedWithNext or Contiguous",
        origin, name);
  }
  step.behavior = behavior->second;
  step.invert = reader.get("invert", false);
  return step;
}

// Matches and what lies between them, in order, without gaps; then regrouped by the behavior.
std::vector<PreTokenizer::Segment> PreTokenizer::segments(const Step& step, std::string_view text) {
  std::vector<Segment> found;
  const auto push = [&](size_t begin, size_t end, bool match) {
    if (begin < end) found.push_back({{begin, end}, match != step.invert});
  };
  size_t done = 0, start = 0;
  while (start <= text.size()) {
    const auto match = step.pattern.front().find(text, start);
    if (!match) break;
    push(done, match->begin, false);
    push(match->begin, match->end, true);
    done = match->end;
    start = done;
    if (match->begin == match->end) {  // an empty match: go on behind the next character
      start += start < text.size() ? next_utf8(text.substr(start)).length : 1;
    }
  }
  push(done, text.size(), false);

  std::vector<Segment> grouped;
  const auto join = [&](const Segment& segment) { grouped.back().range.end = segment.range.end; };
  bool after_match = false;
  switch (step.behavior) {
    case Behavior::isolated:
      return found;
    case Behavior::removed:
      std::erase_if(found, [](const Segment& segment) { return segment.match; });
      return found;
    case Behavior::contiguous:
      for (const Segment& segment : found) {
        if (!grouped.empty() && grouped.back().match == segment.match) {
          join(segment);
        } else {
          grouped.push_back(segment);
        }
      }
      return grouped;
    case Behavior::merged_with_previous:
      for (const Segment& segment : found) {
        if (segment.match && !after_match && !grouped.empty()) {
          join(segment);
        } else {
          grouped.push_back(segment);
        }
        after_match = segment.match;
      }
      return grouped;
    case Behavior::merged_with_next:
      for (auto segment = found.rbegin(); segment != found.rend(); ++segment) {
        if (segment->match && !after_match && !grouped.empty()) {
          grouped.back().range.begin = segment->range.begin;
        } else {
          grouped.push_back(*segment);
        }
        after_match = segment->match;
      }
      std::reverse(grouped.begin(), grouped.end());
      return grouped;
  }
  return found;
}

void PreTokenizer::split(std::string_view text, const PreTokenSink& sink) const {
  if (!text.empty()) run(0, {text, {0, text.size()}}, sink);
}

void PreTokenizer::run(size_t index, const PreToken& piece, const PreTokenSink& sink) const {
  if (index == steps_.size()) return sink(piece);
  const Step& step = steps_[index];
  std::string prefixed;
  PreToken whole = piece;
  if (step.prefix_space && !piece.word.starts_with(' ')) {
    prefixed = " ";
    prefixed += piece.word;
    whole.word = prefixed;
  }
  if (step.pattern.empty()) return run(index + 1, whole, sink);
  // Bytes of `whole.word` that are not in the text: the prefix space, if there is one.
  const size_t extra = whole.word.size() - (whole.range.end - whole.range.begin);
  const auto text_position = [&](size_t at) {
    return whole.range.begin + (at > extra ? at - extra : 0);
  };
  for (const Segment& segment : segments(step, whole.word)) {
    const auto [begin, end] = segment.range;
    run(index + 1,
        {whole.word.substr(begin, end - begin), {text_position(begin), text_position(end)}}, sink);
  }
}

}  // namespace mambify
