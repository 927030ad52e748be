// Training and evaluation text as users write it: JSON lines of conversations or plain text.
#pragma once

#include <nlohmann/json_fwd.hpp>
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

// The messages of a list [{"role": ..., "content": ...}, ...], at least one. key: what messages
// call the list. Throws Error.
std::vector<ChatMessage> parse_messages(const nlohmann::json& list, const std::string& key,
                                        const std::string& origin);
// The list that parse_messages reads.
nlohmann::ordered_json to_json(std::span<const ChatMessage> messages);

// Every line that is not blank, in order. Errors name the file and the line; a file without a
// single example is an error too.
std::vector<Example> read_examples(const fs::path& file);
std::vector<Example> read_examples(std::span<const fs::path> files);

// Writes conversations, then plain texts, as read_examples reads them, atomically.
void write_examples(const fs::path& file, std::span<const std::vector<ChatMessage>> chats,
                    std::span<const std::string> texts = {});

}  // namespace mambify
