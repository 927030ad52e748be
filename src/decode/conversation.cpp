#include "decode/conversation.h"

#include <algorithm>
#include <utility>

namespace mambify {

Conversation::Conversation(Engine& engine, const Tokenizer& tokenizer, ChatTemplate chat,
                           GenerationRequest defaults)
    : engine_(&engine),
      tokenizer_(&tokenizer),
      chat_(std::move(chat)),
      defaults_(std::move(defaults)) {}

void Conversation::reset(const std::string& system) {
  system_ = system;
  messages_.clear();
  ids_.clear();
  if (!system.empty()) messages_.push_back({"system", system});
}

// Tokens drawn before stay as they are: tokenised anew, or trimmed by the template, the same text
// may come out as other tokens, whose state the engine does not hold. So of what the template
// writes only what follows the last answer is added.
std::vector<TokenId> Conversation::prompt_of(const std::vector<ChatMessage>& messages) const {
  if (ids_.empty()) {
    return chat_.tokenize(messages, /*add_generation_prompt=*/true, *tokenizer_).ids;
  }
  const std::string placeholder = "\x01";
  const std::string turn = chat_.render({{"assistant", placeholder}, messages.back()},
                                        /*add_generation_prompt=*/true);
  std::vector<TokenId> ids = ids_;
  const std::vector<TokenId> rest = tokenizer_->encode(
      std::string_view(turn).substr(turn.find(placeholder) + placeholder.size()));
  ids.insert(ids.end(), rest.begin(), rest.end());
  return ids;
}

GenerationResult Conversation::say(const std::string& message,
                                   std::function<void(std::string_view)> on_text) {
  std::vector<ChatMessage> messages = messages_;
  messages.push_back({"user", message});
  GenerationRequest request = defaults_;
  request.prompt = prompt_of(messages);
  request.on_text = std::move(on_text);
  if (static_cast<int64_t>(request.prompt.size()) >= context()) {
    throw ContextFull("The conversation with this message has {} tokens, the context holds {}.",
                      request.prompt.size(), context());
  }
  ids_ = request.prompt;
  std::vector<GenerationRequest> requests;
  requests.push_back(std::move(request));
  GenerationResult result = std::move(generate(*engine_, std::move(requests)).front());
  ids_.insert(ids_.end(), result.ids.begin(), result.ids.end());
  if (result.finish_reason == FinishReason::stop) {
    if (std::ranges::find(defaults_.stop_ids, ids_.back()) != defaults_.stop_ids.end()) {
      ids_.pop_back();  // the template writes the end of the turn
    } else {
      ids_.clear();  // a stop string, which is not part of the answer: read it anew without
    }
  }
  messages.push_back({"assistant", result.text});
  messages_ = std::move(messages);
  return result;
}

}  // namespace mambify
