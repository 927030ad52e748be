#include "data/dataset.h"

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "kernels/parallel.h"

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
  if (std::ranges::any_of(examples, &Example::is_chat)) {
    chat = ChatTemplate::choose(chat_template, tokenizer);
  }
  std::vector<Document> documents(examples.size());
  const auto tokenize = [&](int64_t i) {
    const Example& example = examples[i];
    Document& document = documents[i];
    if (example.is_chat()) {
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
  };
  constexpr int64_t kOperationsOfExample = 1 << 16;  // or more
  const auto count = std::ssize(examples);
  kernels::parallel_tasks(count, count * kOperationsOfExample, tokenize);

  std::erase_if(documents, [](const Document& document) { return document.ids.empty(); });
  Dataset dataset{std::move(documents)};
  if (dataset.counted_tokens() == 0) {
    throw Error("the data has {} tokens in {} documents and none that the loss counts",
                dataset.tokens(), dataset.documents.size());
  }
  return dataset;
}

}  // namespace mambify
