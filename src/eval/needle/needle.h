// Needle in a haystack: whether a model finds a pass key in a long text, by the text's length and
// by where in it the key stands, as arXiv 2408.15237 measures up to 20 times the training length.
// The pass-key task is that of Mohtashami and Jaggi 2023, arXiv 2305.16300.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eval/needle/haystack.h"
#include "model/model.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace mambify {

struct NeedleOptions {
  std::vector<int64_t> lengths;  // tokens of the whole prompt, at most
  std::vector<double> depths;    // where the needle stands: 0 at the beginning, 1 at the end
  int64_t trials = 5;            // of each length and depth, with other keys and other text
  int64_t key_digits = 5;
  int64_t batch = 8;       // prompts read side by side; fewer where they do not fit
  int64_t candidates = 0;  // keys whose likelihoods are ranked, the right one among them; 0: none
  uint64_t seed = 0;
};

// One question. It depends on the seed, the length, the depth and the trial alone, whatever else is
// measured.
struct NeedlePrompt {
  std::vector<TokenId> ids;         // at most as many as the length, by less than a sentence fewer
  std::string key;                  // the right answer
  std::vector<std::string> others;  // candidates - 1 wrong ones, each another
};

// Puts a question together. chat: asked by its template; null: in plain text. Either way the answer
// has begun: "The pass key is". Throws Error where the length is too short for the question and one
// sentence.
NeedlePrompt make_needle_prompt(const NeedleOptions& options, const Haystack& haystack,
                                const Tokenizer& tokenizer, const ChatTemplate* chat,
                                int64_t length, double depth, int64_t trial);

// What an answer takes the key to be: its first run of digits.
std::string answered_key(std::string_view answer);

struct NeedleTrial {
  bool hit = false;           // the greedy answer holds the key
  bool ranked_first = false;  // of all candidates the right key is the likeliest
  double key_nll = 0;         // of the right key, nats per token
  int64_t prompt_tokens = 0;
};

// All trials of one length and one depth.
struct NeedleCell {
  int64_t length = 0;
  double depth = 0;
  std::vector<NeedleTrial> trials;
  std::string error;  // why there are none
};

// A model ready to decode, and how to ask it.
struct NeedleSubject {
  const Model& model;
  const PackedWeights& packed;
  const Tokenizer& tokenizer;
  const ChatTemplate* chat;
  std::vector<TokenId> stop_ids;
  std::string name;  // for progress
};

// Cells by length, then depth. A length whose sequences do not fit into memory has the error in its
// cells, and the others are measured. Lengths beyond the model's positions are run: rotary
// embedding goes on.
std::vector<NeedleCell> run_needle(const NeedleSubject& subject, const Haystack& haystack,
                                   const NeedleOptions& options);

}  // namespace mambify
