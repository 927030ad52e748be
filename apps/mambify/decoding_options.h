// Options of the verbs that generate text.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common_options.h"
#include "decode/engine.h"
#include "model/model.h"
#include "text/chat_template.h"

namespace mambify {

// --temperature, --top-k, --top-p, --min-p; the seed is the common option's.
void add_sampling_options(CLI::App& verb, SamplingOptions& options);

// --weights: what a model's matrices are multiplied as, by name; and the matrices in that format,
// on the device of --device.
void add_weights_option(CLI::App& verb, std::string& format);
PackedWeights pack_weights(const Model& model, const std::string& format,
                           const CommonOptions& common);

// --chat-template: overrides the checkpoint's own.
void add_chat_template_option(CLI::App& verb, std::string& name);

// A model, its tokenizer, and how to talk to it.
struct LoadedModel {
  // Reads both from one checkpoint, the model in the compute dtype of --dtype.
  LoadedModel(const std::string& path, const CommonOptions& common);

  // The checkpoint's own template, or the one called `name` when that is not empty.
  ChatTemplate chat_template(const std::string& name) const;
  // The tokens that end a text, and with a template those that end an assistant's turn.
  std::vector<TokenId> stop_ids(const ChatTemplate* chat = nullptr) const;

  Model model;
  Tokenizer tokenizer;
};

struct DraftOptions {
  std::string draft;            // a checkpoint, "self", "ngram" or nothing
  std::string length = "auto";  // or how many tokens
  std::string min_p = "auto";   // or a probability
  std::string accept = "exact";
  std::string weights;     // nothing: default_draft_weights
  std::string vocabulary;  // a file, "all" or nothing: the draft's own, if its folder has one

  bool adapts() const { return length == "auto"; }
  // Unset: as pays.
  std::optional<double> min_probability() const {
    return min_p == "auto" ? std::nullopt : std::optional(std::stod(min_p));
  }
  int64_t most() const { return adapts() ? kMaxDraftLength : std::stoll(length); }
};
// --draft, --draft-length, --draft-min-p, --draft-weights, --draft-vocabulary, --accept
void add_draft_options(CLI::App& verb, DraftOptions& options);
// The format of a draft model's weights, which --draft-weights changes.
std::string default_draft_weights(const CommonOptions& common);

// Where a draft's folder keeps the tokens that it guesses among; empty: it guesses among all.
std::filesystem::path own_draft_vocabulary(const std::string& draft);
// Reads them and keeps these outputs of the draft. Without a file: none, which are all.
std::vector<TokenId> keep_draft_vocabulary(const std::filesystem::path& file, Model& draft);

// What an engine drafts with, and the model behind it if there is one.
class LoadedDrafter {
 public:
  // target: must outlive this. target_path: for the message when the draft's tokenizer is not its.
  LoadedDrafter(const DraftOptions& options, const CommonOptions& common,
                const std::string& target_path, const LoadedModel& target);
  // Adds the drafter to the options of one engine, whose rows and context are set. Must outlive it.
  void attach_to(EngineOptions& engine);

 private:
  DraftOptions options_;
  std::optional<Model> model_;       // what drafts, if a model does
  std::vector<TokenId> vocabulary_;  // what it guesses among; empty: all tokens
  std::optional<PackedWeights> packed_;
  std::unique_ptr<Drafter> drafter_;
};

}  // namespace mambify
