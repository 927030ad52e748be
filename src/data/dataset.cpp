#include "data/dataset.h"

#include <algorithm>
#include <optional>

#include "core/error.h"

namespace mambify {

int64_t Dataset::tokens() const {
  int64_t total = 0;
  for (const Document& document : documents) total += std::ssize(document.ids);
  return total;
}

int64_t Dataset::counted_tokens() const {
  int64_t total = 0;
  for (const Document& document : documents) {
    total += std::count(document.counts.begin() + 1, document.counts.end(), true);
  }
  return total;
}

Dataset tokenize_examples(std::span<const Example> examples, const Tokenizer& tokenizer,
                          const std::string& chat_template, LossOn loss_on) {
  std::optional<ChatTemplate> chat;
  Dataset dataset;
  for (const Example& example : examples) {
    Document document;
    if (example.is_chat()) {
      if (!chat) chat = ChatTemplate::choose(chat_template, tokenizer);
      ChatTokens tokens =
          chat->tokenize(example.messages, /*add_generation_prompt=*/false, tokenizer);
      document.ids = std::move(tokens.ids);
      document.counts = std::move(tokens.assistant);
    } else {
      document.ids = tokenizer.encode_prompt(example.text);
    }
    if (!example.is_chat() || loss_on == LossOn::all) {
      document.counts.assign(document.ids.size(), true);
    }
    if (!document.ids.empty()) dataset.documents.push_back(std::move(document));
  }
  if (dataset.counted_tokens() == 0) {
    throw Error("the data has {} tokens in {} documents and none that the loss counts",
                dataset.tokens(), dataset.documents.size());
  }
  return dataset;
}

}  // namespace mambify
