// Preference pairs as people publish them: two answers to one conversation, one better.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "text/chat_template.h"

namespace mambify {

// The messages that both have in common, and what follows them: at least one message of the
// assistant's, the last one being the assistant's.
struct PreferencePair {
  std::vector<ChatMessage> prompt;
  std::vector<ChatMessage> chosen, rejected;
};

// One line of a file: {"prompt": ..., "chosen": ..., "rejected": ...}. Strings are a user's turn
// and two answers of the assistant's. Lists of messages {"role", "content"} are answers to
// "prompt", a string or a list, or whole conversations that begin with it (UltraFeedback as
// published by HuggingFaceH4) or have no "prompt" beside them. Other keys are ignored. origin:
// "file:line", for messages. Throws Error.
PreferencePair parse_pair(std::string_view line, const std::string& origin);

// Every line that is not blank, in order. Errors name the file and the line; a file without a pair
// is an error too.
std::vector<PreferencePair> read_pairs(std::span<const fs::path> files);

// Writes pairs as read_pairs reads them, three lists of messages a line, atomically.
void write_pairs(const fs::path& file, std::span<const PreferencePair> pairs);

}  // namespace mambify
