// What does not read a recipe but goes through its keys: the reference and the fingerprint.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <type_traits>
#include <utility>
#include <vector>

#include "distill/recipe.h"

namespace mambify {
namespace {

std::string value_text(bool value) { return value ? "true" : "false"; }
std::string value_text(int64_t value) { return fmt::format("{}", value); }
std::string value_text(uint64_t value) { return fmt::format("{}", value); }
std::string value_text(double value) { return fmt::format("{}", value); }
std::string value_text(const std::string& value) { return fmt::format("\"{}\"", value); }
std::string value_text(const std::array<double, 2>& value) {
  return fmt::format("[{}, {}]", value[0], value[1]);
}
std::string value_text(const std::vector<std::string>& value) {
  std::string text = "[";
  for (const std::string& entry : value) text += fmt::format("\"{}\", ", entry);
  if (!value.empty()) text.resize(text.size() - 2);
  return text + "]";
}
template <typename Enum>
requires std::is_enum_v<Enum> std::string value_text(Enum value) {
  return fmt::format("\"{}\"", name_of(value));
}

// The defaults of a section's keys, in order.
template <typename Section>
std::vector<std::string> default_texts(const Section& section) {
  std::vector<std::string> texts;
  Section::for_each_key(section, [&](const char*, const auto& value, const char*, Range = {}) {
    texts.push_back(fmt::format("`{}`", value_text(value)));
  });
  return texts;
}

std::string table(const char* title, const std::vector<std::string>& defaults,
                  const std::vector<std::pair<const char*, const char*>>& keys) {
  std::string text = fmt::format("### `{}`\n\n| key | default | meaning |\n|---|---|---|\n", title);
  for (size_t i = 0; i < keys.size(); ++i) {
    text += fmt::format("| `{}` | {} | {} |\n", keys[i].first, defaults[i], keys[i].second);
  }
  return text + "\n";
}

template <typename Section>
std::vector<std::pair<const char*, const char*>> keys_of(const Section& section) {
  std::vector<std::pair<const char*, const char*>> keys;
  Section::for_each_key(section, [&](const char* key, const auto&, const char* meaning,
                                     Range = {}) { keys.emplace_back(key, meaning); });
  return keys;
}

template <typename Section>
std::string section_reference(const char* title) {
  return table(title, default_texts(Section()), keys_of(Section()));
}

// Where the default depends on the kind, the kinds that differ are named.
std::string stage_reference() {
  std::vector<std::string> defaults = default_texts(StageSection());
  const std::vector<std::string> common = defaults;
  for (const StageKind kind : {StageKind::sft, StageKind::dpo}) {
    const std::vector<std::string> own = default_texts(default_stage(kind));
    for (size_t i = 1; i < own.size(); ++i) {  // the first is the kind itself
      if (own[i] != common[i]) defaults[i] += fmt::format("; {} {}", name_of(kind), own[i]);
    }
  }
  return table("[[stage]]", defaults, keys_of(StageSection()));
}

// FNV-1a.
void mix(uint64_t& hash, std::string_view text) {
  for (const char c : text) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3;
  }
}

template <typename Section>
void mix_section(uint64_t& hash, const Section& section) {
  Section::for_each_key(section, [&](const char* key, const auto& value, const char*, Range = {}) {
    mix(hash, fmt::format("{}={}\n", key, value_text(value)));
  });
}

}  // namespace

uint64_t fingerprint(const Recipe& recipe) {
  uint64_t hash = 0xcbf29ce484222325;
  mix_section(hash, recipe.model);
  mix_section(hash, recipe.data);
  for (const StageSection& stage : recipe.stages) mix_section(hash, stage);
  mix_section(hash, recipe.run);
  return hash;
}

std::string recipe_reference() {
  return section_reference<ModelSection>("[model]") + section_reference<DataSection>("[data]") +
         stage_reference() + section_reference<RunSection>("[run]");
}

}  // namespace mambify
