// Prompts as the verbs take them: text for the model to continue, or a conversation to answer.
#pragma once

#include <string>
#include <vector>

#include "core/file.h"
#include "text/chat_template.h"

namespace mambify {

struct Prompt {
  std::string text;
  std::vector<ChatMessage> messages;  // when not empty, `text` is not used

  bool is_chat() const { return !messages.empty(); }
};

// A prompt for each line that is not blank: {"prompt": ...}, {"text": ...} or {"messages":
// [{"role", "content"}, ...]}. Throws Error naming file and line; a file without a prompt is an
// error too.
std::vector<Prompt> read_prompts(const fs::path& file);

// The prompt as tokens, up to where the model's answer begins. chat: needed for a conversation.
std::vector<TokenId> tokenize_prompt(const Prompt& prompt, const Tokenizer& tokenizer,
                                     const ChatTemplate* chat);

}  // namespace mambify
