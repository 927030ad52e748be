// Training and evaluation text as users write it: JSON lines of conversations or plain text.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "text/chat_template.h"

namespace mambify {

// One line: a conversation, or plain text when `messages` is empty.
struct Example {
  std::vector<ChatMessage> messages;
  std::string text;

  bool is_chat() const { return !messages.empty(); }
};

// One line of a file: {"messages": [{"role": ..., "content": ...}, ...]} or {"text": ...}; other
// keys beside them are ignored. origin: "file:line", for messages. Throws Error.
Example parse_example(std::string_view line, const std::string& origin);

// Every line that is not blank, in order. Errors name the file and the line; a file without a
// single example is an error too.
std::vector<Example> read_examples(const fs::path& file);
std::vector<Example> read_examples(std::span<const fs::path> files);

// Writes conversations, then plain texts, as read_examples reads them, atomically.
void write_examples(const fs::path& file, std::span<const std::vector<ChatMessage>> chats,
                    std::span<const std::string> texts = {});

}  // namespace mambify
