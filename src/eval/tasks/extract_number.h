// The number that a generated answer ends in, read as EleutherAI's lm-evaluation-harness reads it
// for GSM8K (lm_eval/tasks/gsm8k/gsm8k.yaml, version 3).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mambify {

// Strict: what follows the first marker ("#### ") that a number stands behind, as in
// `#### (\-?[0-9\.\,]+)`.
std::optional<std::string> marked_number(std::string_view text, std::string_view marker);

// Flexible: the last match of `(-?[$0-9.,]{2,})|(-?[0-9]+)`. That may be dots alone.
std::optional<std::string> last_number(std::string_view text);

// What is compared: without commas and dollar signs, without everything up to the last "#### ", and
// without one period at the end.
std::string normalise_number(std::string_view number);

}  // namespace mambify
