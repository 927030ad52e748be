#include "decoding_options.h"

#include "checkpoint_options.h"
#include "model/load.h"

namespace mambify {

void add_sampling_options(CLI::App& verb, SamplingOptions& options) {
  verb.add_option("--temperature", options.temperature,
                  "divides the logits; 0 takes the likeliest token")
      ->capture_default_str();
  verb.add_option("--top-k", options.top_k, "sample from the K likeliest tokens (0: all)")
      ->capture_default_str();
  verb.add_option("--top-p", options.top_p,
                  "sample from the fewest likeliest tokens with this much probability")
      ->capture_default_str();
  verb.add_option("--min-p", options.min_p,
                  "sample from tokens at least this probable relative to the likeliest")
      ->capture_default_str();
}

void add_chat_template_option(CLI::App& verb, std::string& name) {
  verb.add_option("--chat-template", name,
                  "chatml, smollm2 or llama3 (default: recognised from the checkpoint)");
}

LoadedModel::LoadedModel(const std::string& path, const CommonOptions& common)
    : model(load_model(path, compute_dtype(common))), tokenizer(Tokenizer::load(path)) {}

ChatTemplate LoadedModel::chat_template(const std::string& name) const {
  return name.empty() ? ChatTemplate::recognise(tokenizer) : ChatTemplate::named(name, tokenizer);
}

std::vector<TokenId> LoadedModel::stop_ids(const ChatTemplate* chat) const {
  std::vector<TokenId> ids = tokenizer.stop_ids();
  if (chat != nullptr) {
    const std::vector<TokenId> ends = chat->turn_end_ids(tokenizer);
    ids.insert(ids.end(), ends.begin(), ends.end());
  }
  return ids;
}

}  // namespace mambify
