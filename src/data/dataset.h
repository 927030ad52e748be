// Documents as tokens, each token marked for whether the loss counts its prediction.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/examples.h"
#include "text/tokenizer.h"

namespace mambify {

struct Document {
  std::vector<TokenId> ids;
  std::vector<bool> counts;  // per token: predicting it is part of the loss
};

// Which tokens of a conversation the loss counts. Of plain text it counts all.
enum class LossOn { assistant, all };

struct Dataset {
  std::vector<Document> documents;  // none is empty

  int64_t tokens() const;
  int64_t counted_tokens() const;  // predictions the loss counts; a document's first token is none
};

// Tokenises examples: conversations through the chat template, plain text as a prompt of the
// tokenizer's own settings. chat_template: a kind of ChatTemplate::named, or "" for the
// checkpoint's own, which is looked at only when there is a conversation. Throws Error when no
// token counts.
Dataset tokenize_examples(std::span<const Example> examples, const Tokenizer& tokenizer,
                          const std::string& chat_template, LossOn loss_on);

}  // namespace mambify
