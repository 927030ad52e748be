// How likely a model finds each of several keys behind a prompt.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "decode/model_rows.h"
#include "eval/needle/needle.h"

namespace mambify {

struct KeyLikelihood {
  bool right_is_first = false;  // no wrong key is as likely
  double right_nll = 0;         // of the right key, nats per token
};

// Reads each prompt once, prompt i in row i, and each key as drafts that are then forgotten. The
// rows take as many drafts as a key has tokens, and are empty before and after. Throws Error for a
// key of more tokens than kMostTokensAlone.
std::vector<KeyLikelihood> key_likelihoods(ModelRows& rows, std::span<const NeedlePrompt> prompts,
                                           const Tokenizer& tokenizer);

// The key as it continues a text that a space follows.
std::vector<TokenId> key_tokens(const std::string& key, const Tokenizer& tokenizer);

}  // namespace mambify
