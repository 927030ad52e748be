// What does not read a recipe but goes through its keys: the reference and the fingerprint.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iterator>
#include <type_traits>

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

template <typename Section>
std::string section_reference(const char* title) {
  std::string text = fmt::format("### `{}`\n\n| key | default | meaning |\n|---|---|---|\n", title);
  const Section defaults;
  Section::for_each_key(
      defaults, [&](const char* key, const auto& value, const char* meaning, Range = {}) {
        text += fmt::format("| `{}` | `{}` | {} |\n", key, value_text(value), meaning);
      });
  return text + "\n";
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
         section_reference<StageSection>("[[stage]]") + section_reference<RunSection>("[run]");
}

}  // namespace mambify
