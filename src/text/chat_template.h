// Chat templates: messages to the prompt a model was trained on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace mambify {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// A rendered conversation as tokens. assistant[i] tells whether ids[i] was written by the
// assistant: its content and the token that ends its turn, not the turn's header. A token that
// crosses from the header into the content counts as the assistant's.
struct ChatTokens {
  std::vector<TokenId> ids;
  std::vector<bool> assistant;
};

class ChatTemplate {
 public:
  enum class Kind { chatml, smollm2, llama3 };

  // Recognises the family from the checkpoint's own Jinja template. An unknown or absent template
  // is an Error that names `--chat-template` and the kinds it takes; so is one of a family that
  // also writes a system prompt of its own, because the model was trained with it.
  static ChatTemplate recognise(const Tokenizer& tokenizer);
  // kind: "chatml", "smollm2" or "llama3".
  static ChatTemplate named(std::string_view kind, const Tokenizer& tokenizer);
  // The one called `kind`, or the checkpoint's own when that is empty.
  static ChatTemplate choose(std::string_view kind, const Tokenizer& tokenizer) {
    return kind.empty() ? recognise(tokenizer) : named(kind, tokenizer);
  }

  std::string render(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const;
  // first_marked: the assistant's turns before this message are not marked.
  ChatTokens tokenize(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                      const Tokenizer& tokenizer, size_t first_marked = 0) const;
  // Tokens that end an assistant's turn ("<|im_end|>", "<|eot_id|>").
  std::vector<TokenId> turn_end_ids(const Tokenizer& tokenizer) const;
  Kind kind() const { return kind_; }

 private:
  // A stretch of the rendered prompt; `assistant` as in ChatTokens.
  struct Part {
    std::string text;
    bool assistant;
  };
  ChatTemplate(Kind kind, std::string bos) : kind_(kind), bos_(std::move(bos)) {}
  std::vector<Part> parts(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                          size_t first_marked) const;

  Kind kind_;
  std::string bos_;
};

}  // namespace mambify
