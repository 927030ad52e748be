#include <algorithm>

#include "data/examples.h"
#include "eval_verbs.h"

namespace mambify {

void add_eval_data_options(CLI::App& verb, EvalDataOptions& options) {
  verb.add_option("--data", options.data,
                  "JSON lines of {\"messages\": ...} (the assistant's tokens count) or {\"text\": "
                  "...} (all count)")
      ->required();
  verb.add_option("--chat-template", options.chat_template,
                  "chatml, smollm2 or llama3 (default: recognised from the checkpoint)");
  verb.add_option("--sequence-length", options.sequence_length,
                  "longer documents are cut into pieces of so many tokens")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20))
      ->capture_default_str();
}

std::vector<Document> read_eval_data(const EvalDataOptions& options, const Tokenizer& tokenizer) {
  const std::vector<Example> examples = read_examples(fs::path(options.data));
  const Dataset dataset =
      tokenize_examples(examples, tokenizer, options.chat_template, LossOn::assistant);
  const auto piece_length = static_cast<size_t>(options.sequence_length);
  std::vector<Document> pieces;
  for (const Document& document : dataset.documents) {
    for (size_t first = 0; first < document.ids.size(); first += piece_length) {
      const auto begin = static_cast<ptrdiff_t>(first);
      const auto end = static_cast<ptrdiff_t>(std::min(first + piece_length, document.ids.size()));
      pieces.push_back({{document.ids.begin() + begin, document.ids.begin() + end},
                        {document.counts.begin() + begin, document.counts.begin() + end}});
    }
  }
  return pieces;
}

}  // namespace mambify
