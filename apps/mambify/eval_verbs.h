// The sub-verbs of eval and what they share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "checkpoint_options.h"
#include "data/dataset.h"

namespace mambify {

void add_eval_perplexity(CLI::App& eval);
void add_eval_agreement(CLI::App& eval);
void add_eval_tasks(CLI::App& eval);
void add_eval_answers(CLI::App& eval);
void add_eval_sensitivity(CLI::App& eval);
void add_eval_needle(CLI::App& eval);
void add_eval_report(CLI::App& eval);

// What a result's JSON says of its origin under the key "about", and eval report reads: {"kind",
// "model", "teacher", "data", "device", "dtype", "seed", "command", "version"}. kind: the sub-verb;
// a path that is empty becomes null; command: the arguments of this process.
nlohmann::json about_result(const std::string& kind, const CommonOptions& common,
                            const std::string& model, const std::string& teacher,
                            const std::string& data);

// Text to compare models on.
struct EvalDataOptions {
  std::string data, chat_template;
  int64_t sequence_length = 2048;
};

// --data, --chat-template, --sequence-length.
void add_eval_data_options(CLI::App& verb, EvalDataOptions& options);

// The documents of --data, assistant's tokens counted; longer ones are cut into pieces of
// --sequence-length.
std::vector<Document> read_eval_data(const EvalDataOptions& options, const Tokenizer& tokenizer);

}  // namespace mambify
