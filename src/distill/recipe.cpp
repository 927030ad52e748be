#include "distill/recipe.h"

#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <set>
#include <sstream>
#include <type_traits>

#include "core/error.h"
#include "core/file.h"
#include "distill/nearest.h"

namespace mambify {
namespace {

// Where a value stands, for messages. Values of --set have no line.
std::string place(const std::string& origin, const toml::source_region& source) {
  return source.begin.line == 0 ? "--set" : fmt::format("{}:{}", origin, source.begin.line);
}

std::string found(const toml::node& node) {
  std::ostringstream type;
  type << node.type();
  std::ostringstream value;
  node.visit([&](const auto& typed) {
    if constexpr (toml::is_value<decltype(typed)>) value << " " << typed;
  });
  return type.str() + value.str();
}

// Reads one table into one section's struct.
class SectionReader {
 public:
  SectionReader(const toml::table& table, std::string section, const std::string& origin)
      : table_(table), section_(std::move(section)), origin_(origin) {}

  template <typename T>
  void operator()(const char* key, T& value, const char* /*meaning*/, Range range = {}) {
    known_.push_back(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return;
    read(key, *node, value);
    if constexpr (std::is_arithmetic_v<T>) {
      check(key, *node, static_cast<double>(value), range);
    } else if constexpr (std::is_same_v<T, std::array<double, 2>>) {
      for (double entry : value) check(key, *node, entry, range);
    }
  }

  void reject_unknown() const {
    for (auto&& [key, node] : table_) {
      if (std::ranges::find(known_, key.str()) != known_.end()) continue;
      throw Error("{}: unknown key \"{}\" in {}; the nearest known key is \"{}\"",
                  place(origin_, node.source()), key.str(), section_, nearest(key.str(), known_));
    }
  }

 private:
  [[noreturn]] void fail(const char* key, const toml::node& node,
                         const std::string& expected) const {
    throw Error("{}: {} of {} is {}, expected {}", place(origin_, node.source()), key, section_,
                found(node), expected);
  }

  void check(const char* key, const toml::node& node, double value, Range range) const {
    if (value >= range.low && value <= range.high) return;  // not so for NaN
    fail(key, node, fmt::format("a number in [{}, {}]", range.low, range.high));
  }

  void read(const char* key, const toml::node& node, bool& value) const {
    if (!node.is_boolean()) fail(key, node, "true or false");
    value = node.as_boolean()->get();
  }
  void read(const char* key, const toml::node& node, int64_t& value) const {
    if (!node.is_integer()) fail(key, node, "an integer");
    value = node.as_integer()->get();
  }
  void read(const char* key, const toml::node& node, uint64_t& value) const {
    if (!node.is_integer() || node.as_integer()->get() < 0) {
      fail(key, node, "an integer of at least 0");
    }
    value = static_cast<uint64_t>(node.as_integer()->get());
  }
  void read(const char* key, const toml::node& node, double& value) const {
    if (!node.is_number()) fail(key, node, "a number");
    value = *node.value<double>();
    if (!std::isfinite(value)) fail(key, node, "a finite number");
  }
  void read(const char* key, const toml::node& node, std::string& value) const {
    if (!node.is_string()) fail(key, node, "a string");
    value = node.as_string()->get();
  }
  template <typename Enum>
  requires std::is_enum_v<Enum>
  void read(const char* key, const toml::node& node, Enum& value) const {
    constexpr const auto& kNames = kNamesOf<Enum>;
    std::string name;
    if (node.is_string()) name = node.as_string()->get();
    const auto at = std::ranges::find(kNames, name);
    if (at == kNames.end()) {
      fail(key, node, fmt::format("one of \"{}\"", fmt::join(kNames, "\", \"")));
    }
    value = static_cast<Enum>(at - kNames.begin());
  }
  void read(const char* key, const toml::node& node, std::vector<std::string>& value) const {
    const toml::array* list = node.as_array();
    if (list == nullptr) fail(key, node, "a list of strings");
    value.clear();
    for (const toml::node& entry : *list) read(key, entry, value.emplace_back());
  }
  void read(const char* key, const toml::node& node, std::array<double, 2>& value) const {
    const toml::array* list = node.as_array();
    if (list == nullptr || list->size() != 2) fail(key, node, "a list of two numbers");
    for (size_t i = 0; i < 2; ++i) read(key, *list->get(i), value[i]);
  }

  const toml::table& table_;
  std::string section_;
  const std::string& origin_;
  std::vector<std::string_view> known_;
};

// section: what it is without the keys of the table.
template <typename Section>
Section read_section(const toml::table& table, const std::string& name, const std::string& origin,
                     Section section = {}) {
  SectionReader reader(table, name, origin);
  Section::for_each_key(section, reader);
  reader.reject_unknown();
  return section;
}

StageSection read_stage(const toml::table& table, const std::string& name,
                        const std::string& origin) {
  StageKind kind = StageSection().kind;
  SectionReader(table, name, origin)("kind", kind, /*meaning=*/"");
  return read_section(table, name, origin, default_stage(kind));
}

toml::table parse_toml(std::string_view text, const std::string& origin) {
  try {
    return toml::parse(text, origin);
  } catch (const toml::parse_error& error) {
    throw Error("{}:{}: {}", origin, error.source().begin.line, error.description());
  }
}

// The table that "stage.0" or "model" names; a section that the recipe leaves out is added.
toml::table& section_for_override(toml::table& root, const std::string& path,
                                  const std::string& assignment) {
  const size_t dot = path.find('.');
  if (dot == std::string::npos) {
    if (!root.contains(path)) root.insert(path, toml::table{});
    if (toml::table* table = root[path].as_table()) return *table;
    throw Error("--set {}: {} is not a section; write stage.0.key for the first stage", assignment,
                path);
  }
  const toml::array* list = root[path.substr(0, dot)].as_array();
  const std::string index_text = path.substr(dot + 1);
  const size_t size = list == nullptr ? 0 : list->size();
  size_t index = size;
  if (!index_text.empty() && index_text.size() < 6 &&
      index_text.find_first_not_of("0123456789") == std::string::npos) {
    index = std::stoul(index_text);
  }
  if (index >= size) {
    throw Error("--set {}: the recipe has no [[{}]] number {} (it has {}, counted from 0)",
                assignment, path.substr(0, dot), index_text, size);
  }
  toml::table* table = root[path.substr(0, dot)].as_array()->get(index)->as_table();
  if (table == nullptr) throw Error("--set {}: {} is not a section", assignment, path);
  return *table;
}

void apply_override(toml::table& root, const std::string& assignment) {
  const size_t equals = assignment.find('=');
  const size_t dot = assignment.rfind('.', equals);
  if (equals == std::string::npos || dot == std::string::npos || dot == 0 || dot + 1 >= equals) {
    throw Error("--set {}: expected section.key=value", assignment);
  }
  toml::table& section = section_for_override(root, assignment.substr(0, dot), assignment);
  const std::string key = assignment.substr(dot + 1, equals - dot - 1);
  const std::string value = assignment.substr(equals + 1);
  try {
    const toml::table parsed = toml::parse("value = " + value);
    if (parsed.size() != 1) throw Error("--set {}: more than one value", assignment);
    // Copied, the node loses its line, by which place() knows it.
    parsed.get("value")->visit([&](const auto& node) { section.insert_or_assign(key, node); });
  } catch (const toml::parse_error&) {
    section.insert_or_assign(key, value);
  }
}

// A plain word that is the name of none of the folders that a run makes itself.
bool is_new_folder(const std::string& name) {
  constexpr std::string_view kOwn[] = {"final", "checkpoints", "reference"};
  const auto is_plain = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; };
  return std::ranges::all_of(name, is_plain) && std::ranges::find(kOwn, name) == std::end(kOwn);
}

void check_stage(const StageSection& stage, size_t index, const std::string& origin) {
  const auto fail = [&](const std::string& message) {
    throw Error("{}: [[stage]] {} ({}): {}", origin, index, name_of(stage.kind), message);
  };
  const int limits = (stage.steps > 0) + (stage.tokens > 0) + (stage.minutes > 0);
  if (limits != 1) {
    fail(fmt::format("{} of steps, tokens and minutes are given, expected exactly one", limits));
  }
  if (stage.batch_tokens % stage.accumulation != 0) {
    fail(fmt::format("batch_tokens = {} is not a multiple of accumulation = {}", stage.batch_tokens,
                     stage.accumulation));
  }
  const bool rounds = stage.kind == StageKind::stepwise, pairs = stage.kind == StageKind::dpo;
  if ((rounds || stage.kind == StageKind::align) && stage.train == TrainSet::all) {
    fail("train = \"all\", but this stage trains mixers only");
  }
  if (rounds && stage.keep_attention.empty()) {
    fail("keep_attention lists no rounds, expected such as [\"1/2\", \"1/4\"]");
  }
  if (!rounds && stage.keep_attention.size() > 1) {
    fail("keep_attention has several entries, but only stepwise stages have rounds");
  }
  const bool weighted = rounds || stage.kind == StageKind::distill;
  if (weighted && stage.kl_weight + stage.ce_weight <= 0) {
    fail("kl_weight and ce_weight are both 0: nothing to learn from");
  }
  const StageSection defaults = default_stage(stage.kind);
  if ((stage.kind == StageKind::sft || pairs) &&
      (stage.kl_weight != defaults.kl_weight || stage.ce_weight != defaults.ce_weight)) {
    fail("kl_weight and ce_weight belong to distill and stepwise stages");
  }
  if (!pairs && (stage.beta != defaults.beta || stage.reference != defaults.reference ||
                 stage.label_smoothing != defaults.label_smoothing)) {
    fail("beta, label_smoothing and reference belong to dpo stages");
  }
  if (pairs && stage.files.empty()) {
    fail("files is missing: a dpo stage reads preference pairs of its own");
  }
  if (!is_new_folder(stage.save)) {
    fail(fmt::format("save = \"{}\", expected a new folder's name of letters, digits, - and _",
                     stage.save));
  }
  if (stage.warmup + (stage.schedule == ScheduleKind::wsd ? stage.decay : 0) > 1) {
    fail("warmup and decay together are more than the whole stage");
  }
}

// The longest pair must fit into a part of a step, or a run would stop when it meets one.
void check_pairs_fit(const StageSection& stage, size_t index, const DataSection& data,
                     const std::string& origin) {
  const int64_t part = stage.batch_tokens / stage.accumulation, pair = 2 * data.sequence_length;
  if (stage.kind != StageKind::dpo || part >= pair) return;
  throw Error(
      "{}: [[stage]] {} (dpo): a part of a step has {} tokens (batch_tokens = {}, accumulation = "
      "{}), expected at least {} for a pair of answers of sequence_length = {}",
      origin, index, part, stage.batch_tokens, stage.accumulation, pair, data.sequence_length);
}

void check(const Recipe& recipe, const std::string& origin) {
  if (recipe.model.teacher.empty()) throw Error("{}: teacher of [model] is missing", origin);
  if (recipe.run.dir.empty()) throw Error("{}: dir of [run] is missing", origin);
  if (recipe.stages.empty()) throw Error("{}: no [[stage]]", origin);
  for (const StageSection& stage : recipe.stages) {
    if (stage.files.empty() && recipe.data.files.empty()) {
      throw Error("{}: files of [data] is missing or empty", origin);
    }
  }
  const ModelSection& model = recipe.model;
  if (!model.student.empty() && !model.keep_attention.empty()) {
    throw Error(
        "{}: [model] has both student and keep_attention; a given student is converted further by "
        "keep_attention of a [[stage]]",
        origin);
  }
  if (model.student.empty() && model.keep_attention.empty() &&
      recipe.stages.front().keep_attention.empty()) {
    throw Error(
        "{}: [model] has neither student nor keep_attention, nor has the first stage "
        "keep_attention: no layer would be a Mamba layer",
        origin);
  }
  std::set<std::string> saved;
  for (size_t i = 0; i < recipe.stages.size(); ++i) {
    const std::string& save = recipe.stages[i].save;
    if (!save.empty() && !saved.insert(save).second) {
      throw Error("{}: save = \"{}\" is there twice", origin, save);
    }
    check_stage(recipe.stages[i], i, origin);
    check_pairs_fit(recipe.stages[i], i, recipe.data, origin);
  }
}

std::string to_text(const toml::table& table) {
  std::ostringstream text;
  text << table << "\n";
  return text.str();
}

}  // namespace

Recipe parse_recipe(std::string_view text, const std::string& origin,
                    const std::vector<std::string>& overrides) {
  toml::table root = parse_toml(text, origin);
  for (const std::string& assignment : overrides) apply_override(root, assignment);

  constexpr std::string_view kSections[] = {"model", "data", "stage", "run"};
  for (auto&& [key, node] : root) {
    if (std::ranges::find(kSections, key.str()) != std::end(kSections)) continue;
    throw Error("{}: unknown section \"{}\"; the nearest known section is \"{}\"",
                place(origin, node.source()), key.str(), nearest(key.str(), kSections));
  }
  // By reference: copied nodes forget their lines.
  const toml::table absent;
  const auto section = [&](const char* name) -> const toml::table& {
    const toml::node* node = root.get(name);
    if (node == nullptr) return absent;
    if (const toml::table* table = node->as_table()) return *table;
    throw Error("{}: {} is {}, expected a section [{}]", place(origin, node->source()), name,
                found(*node), name);
  };

  Recipe recipe;
  recipe.model = read_section<ModelSection>(section("model"), "[model]", origin);
  recipe.data = read_section<DataSection>(section("data"), "[data]", origin);
  recipe.run = read_section<RunSection>(section("run"), "[run]", origin);
  if (const toml::node* stages = root.get("stage")) {
    const toml::array* list = stages->as_array();
    for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
      const toml::table* table = list->get(i)->as_table();
      if (table == nullptr) {
        throw Error("{}: entry {} of stage is {}, expected sections [[stage]]",
                    place(origin, stages->source()), i, found(*list->get(i)));
      }
      recipe.stages.push_back(read_stage(*table, fmt::format("[[stage]] {}", i), origin));
    }
    if (list == nullptr) {
      throw Error("{}: stage is {}, expected sections [[stage]]", place(origin, stages->source()),
                  found(*stages));
    }
  }
  check(recipe, origin);
  recipe.text = overrides.empty() ? std::string(text) : to_text(root);
  return recipe;
}

Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  return parse_recipe(read_text_file(path), path, overrides);
}

}  // namespace mambify
