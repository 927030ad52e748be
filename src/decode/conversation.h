// A conversation whose state stays in the engine: a turn reads only what is new.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "decode/engine.h"
#include "text/chat_template.h"

namespace mambify {

// The next message does not fit behind the conversation so far.
class ContextFull : public Error {
 public:
  using Error::Error;
};

class Conversation {
 public:
  // defaults: everything of a request but its prompt and callbacks. The engine and the tokenizer
  // must outlive the conversation.
  Conversation(Engine& engine, const Tokenizer& tokenizer, ChatTemplate chat,
               GenerationRequest defaults);

  // Forgets everything said; a system message that is not empty opens the new conversation.
  void reset(const std::string& system);
  void reset() { reset(system_); }

  // Says something and returns the answer, which on_text also gets as it comes. Throws ContextFull,
  // and then the conversation is as it was before.
  GenerationResult say(const std::string& message,
                       std::function<void(std::string_view)> on_text = {});

  const std::vector<ChatMessage>& messages() const { return messages_; }
  int64_t context() const { return engine_->context(); }
  bool is_full() const { return static_cast<int64_t>(ids_.size()) >= context(); }

 private:
  std::vector<TokenId> prompt_of(const std::vector<ChatMessage>& messages) const;

  Engine* engine_;
  const Tokenizer* tokenizer_;
  ChatTemplate chat_;
  GenerationRequest defaults_;
  std::string system_;
  std::vector<ChatMessage> messages_;
  std::vector<TokenId> ids_;  // of the conversation up to the end of the last answer's text
};

}  // namespace mambify
