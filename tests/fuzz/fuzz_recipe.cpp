// Any text as a recipe: it is read, or ends in an Error.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "distill/recipe.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const mambify::Recipe recipe = mambify::parse_recipe(text, "recipe");
    mambify::fingerprint(recipe);
  } catch (const mambify::Error&) {
  }
  try {
    // The same bytes as an override.
    mambify::parse_recipe("[[stage]]\n", "recipe", {std::string(text)});
  } catch (const mambify::Error&) {
  }
  return 0;
}
