#include "decoding_options.h"

#include "checkpoint_options.h"
#include "core/error.h"
#include "decode/draft_vocabulary.h"
#include "decode/stop_ids.h"
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

void add_weights_option(CLI::App& verb, std::string& format) {
  verb.add_option(
          "--weights", format,
          "native: multiply by the weights as --dtype has them; int8: by 8-bit integers, 32 "
          "of which share a scale, for a quarter of the memory traffic of fp32 and half of "
          "bf16's, which is what decoding waits for, at a small loss of accuracy; that "
          "speculation changes no bit holds for both")
      ->check(CLI::IsMember({"native", "int8"}))
      ->capture_default_str();
}

PackedWeights pack_weights(const Model& model, const std::string& format,
                           const CommonOptions& common) {
  return PackedWeights(model, format == "int8" ? WeightFormat::int8 : WeightFormat::native,
                       cuda_device(common));
}

void add_chat_template_option(CLI::App& verb, std::string& name) {
  verb.add_option("--chat-template", name,
                  "chatml, smollm2 or llama3 (default: recognised from the checkpoint)");
}

LoadedModel::LoadedModel(const std::string& path, const CommonOptions& common)
    : model(load_model(path, compute_dtype(common))), tokenizer(Tokenizer::load(path)) {}

ChatTemplate LoadedModel::chat_template(const std::string& name) const {
  return ChatTemplate::choose(name, tokenizer);
}

std::vector<TokenId> LoadedModel::stop_ids(const ChatTemplate* chat) const {
  return generation_stop_ids(tokenizer, chat);
}

void add_draft_options(CLI::App& verb, DraftOptions& options) {
  auto* draft = verb.add_option(
      "--draft", options.draft,
      "speculate: self, the model with int8 weights drafts for itself; ngram, look the text's end "
      "up in the text; or a smaller model with the same tokenizer. Faster where guesses are right, "
      "and no bit of the result changes");
  verb.add_option("--draft-length", options.length,
                  "tokens guessed at once, or auto: as many as have paid lately, perhaps none")
      ->check(CLI::IsMember({"auto"}) | CLI::Range(int64_t{1}, kMaxDraftLength))
      ->capture_default_str()
      ->needs(draft);
  verb.add_option(
          "--draft-min-p", options.min_p,
          "a draft model stops before a guess that, with all before it, it holds to be right "
          "with less than this probability: verifying it would cost more than it brings; 0: "
          "never. auto: what pays by the times measured, with --draft-length auto and without "
          "--temperature on the cpu, else 0")
      ->check(CLI::IsMember({"auto"}) | CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->needs(draft);
  verb.add_option(
          "--draft-weights", options.weights,
          "of a draft model, as --weights; guesses may be rough, what counts is their price "
          "(default: int8 on the cpu, native on cuda)")
      ->check(CLI::IsMember({"native", "int8"}))
      ->needs(draft);
  verb.add_option(
          "--draft-vocabulary", options.vocabulary,
          "what a draft model guesses among: a JSON file {\"tokens\": [ids]}, or all "
          "(default: draft_vocabulary.json of the draft's folder where it has one). A draft "
          "multiplies only these tokens' rows of its output matrix")
      ->needs(draft);
  verb.add_option("--accept", options.accept,
                  "exact: a guess that the model draws itself, the same tokens as without guesses; "
                  "distribution: by rejection sampling, more guesses, other tokens from the same "
                  "distribution (the same in every run with a fixed --draft-length)")
      ->check(CLI::IsMember({"exact", "distribution"}))
      ->capture_default_str()
      ->needs(draft);
}

std::string default_draft_weights(const CommonOptions& common) {
  return cuda_device(common) ? "native" : "int8";
}

fs::path own_draft_vocabulary(const std::string& draft) {
  const fs::path own = fs::path(draft) / kDraftVocabularyFile;
  return fs::exists(own) ? own : fs::path();
}

std::vector<TokenId> keep_draft_vocabulary(const fs::path& file, Model& draft) {
  if (file.empty()) return {};
  std::vector<TokenId> tokens = read_draft_vocabulary(file, draft.config.vocab_size);
  keep_outputs(draft, tokens);
  return tokens;
}

namespace {

// The file to read, or nothing where a draft guesses among all tokens.
fs::path vocabulary_file(const DraftOptions& options) {
  if (options.vocabulary == "all") return {};
  if (!options.vocabulary.empty()) return options.vocabulary;
  return options.draft == "self" ? fs::path() : own_draft_vocabulary(options.draft);
}

}  // namespace

LoadedDrafter::LoadedDrafter(const DraftOptions& options, const CommonOptions& common,
                             const std::string& target_path, const LoadedModel& target)
    : options_(options) {
  if (options.draft == "ngram" && !options.vocabulary.empty()) {
    throw UsageError(
        "--draft-vocabulary is for drafts that are models; ngram guesses from the text");
  }
  if (options.draft == "ngram" && options.min_probability()) {
    throw UsageError("--draft-min-p is for drafts that are models; ngram knows no probabilities");
  }
  if (options.draft.empty() || options.draft == "ngram") return;
  const bool on_cpu = !cuda_device(common);
  // A CUDA device does not tell how likely what it draws is: scores would be copied, for passes
  // that cost little more for a guess. And the model agrees with itself where it is not certain,
  // too.
  if (options.min_p == "auto" && (!on_cpu || options.draft == "self")) options_.min_p = "0";
  if (options.draft == "self") {
    if (!on_cpu) {
      throw UsageError(
          "--draft self drafts with int8 weights, which are for --device cpu; on {} "
          "draft with ngram or a smaller model",
          common.device);
    }
    model_ = target.model;  // handles
  } else {
    LoadedModel loaded(options.draft, common);
    check_same_vocabulary(target_path, target.tokenizer, options.draft, loaded.tokenizer);
    model_ = std::move(loaded.model);
  }
  vocabulary_ = keep_draft_vocabulary(vocabulary_file(options), *model_);
  packed_.emplace(pack_weights(
      *model_, options.weights.empty() ? default_draft_weights(common) : options.weights, common));
}

void LoadedDrafter::attach_to(EngineOptions& engine) {
  if (options_.draft.empty()) return;
  drafter_ = model_ ? model_drafter(*model_, engine.rows, engine.context, options_.most(),
                                    &*packed_, vocabulary_)
                    : ngram_drafter();
  engine.drafter = drafter_.get();
  engine.draft_length = options_.most();
  engine.adapt_draft_length = options_.adapts();
  engine.min_draft_probability = options_.min_probability();
  engine.acceptance =
      options_.accept == "distribution" ? Acceptance::distribution : Acceptance::exact;
}

}  // namespace mambify
