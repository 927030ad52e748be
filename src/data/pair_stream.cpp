#include "data/pair_stream.h"

#include <algorithm>

#include "core/error.h"
#include "data/shuffle.h"

namespace mambify {
namespace {

// Prompt and answer as the model reads them; the answer counts.
Document tokenize_side(const std::vector<ChatMessage>& prompt,
                       const std::vector<ChatMessage>& answer, const ChatTemplate& chat,
                       const Tokenizer& tokenizer) {
  std::vector<ChatMessage> whole = prompt;
  whole.insert(whole.end(), answer.begin(), answer.end());
  ChatTokens tokens = chat.tokenize(whole, /*add_generation_prompt=*/false, tokenizer,
                                    /*first_marked=*/prompt.size());
  return {std::move(tokens.ids), std::move(tokens.assistant)};
}

}  // namespace

int64_t PairDataset::tokens() const {
  int64_t total = 0;
  for (const DocumentPair& pair : pairs) total += pair.tokens();
  return total;
}

PairDataset tokenize_pairs(std::span<const PreferencePair> pairs, const Tokenizer& tokenizer,
                           const std::string& chat_template, int64_t max_length) {
  const ChatTemplate chat = ChatTemplate::choose(chat_template, tokenizer);
  PairDataset dataset;
  for (const PreferencePair& pair : pairs) {
    DocumentPair documents{tokenize_side(pair.prompt, pair.chosen, chat, tokenizer),
                           tokenize_side(pair.prompt, pair.rejected, chat, tokenizer)};
    const auto length =
        std::max(std::ssize(documents.chosen.ids), std::ssize(documents.rejected.ids));
    if (length > max_length) {
      ++dataset.too_long;
    } else if (documents.chosen.ids == documents.rejected.ids) {
      ++dataset.equal;
    } else {
      dataset.pairs.push_back(std::move(documents));
    }
  }
  if (dataset.pairs.empty()) {
    throw Error(
        "of {} pairs none can be learnt from: {} have an answer that ends behind {} tokens "
        "(sequence_length), {} have two equal answers",
        pairs.size(), dataset.too_long, max_length, dataset.equal);
  }
  return dataset;
}

PairStream::PairStream(const PairDataset& dataset, uint64_t seed)
    : dataset_(&dataset), seed_(seed) {}

const DocumentPair& PairStream::pair_at(int64_t position) {
  const auto count = std::ssize(dataset_->pairs);
  if (position / count != epoch_) {
    epoch_ = position / count;
    order_ = shuffled(count, seed_, epoch_);
  }
  return dataset_->pairs[order_[position % count]];
}

Batch PairStream::batch(int64_t position, int64_t tokens) {
  Batch batch;
  batch.next = position;
  for (;;) {
    const DocumentPair& pair = pair_at(batch.next);
    if (batch.tokens() + pair.tokens() > tokens) break;
    for (const Document* side : {&pair.chosen, &pair.rejected}) {
      batch.append(*side, 0, std::ssize(side->ids));
    }
    ++batch.next;
  }
  if (batch.next == position) {
    throw Error("a pair of {} tokens does not fit into the {} of a part of a step",
                pair_at(position).tokens(), tokens);
  }
  batch.segments.starts.push_back(batch.tokens());
  return batch;
}

}  // namespace mambify
