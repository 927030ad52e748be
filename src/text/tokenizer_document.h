// The parts of a tokenizer.json around its model and its pre-tokenizer.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"

namespace mambify {

// An entry of the document; the optional one is null when it is absent. Errors name `origin`.
const nlohmann::json& required_entry(const nlohmann::json& document, const char* key,
                                     const std::string& origin);
const nlohmann::json& optional_entry(const nlohmann::json& document, const char* key,
                                     const std::string& origin);

// `added_tokens`, checked against the model's vocabulary: an id has one token, a token one id.
std::vector<AddedToken> read_added_tokens(const nlohmann::json& document,
                                          const TokenIndex& vocabulary, const std::string& origin);

// Tokens that the post-processor puts in front of a prompt.
std::vector<TokenId> read_prompt_prefix(const nlohmann::json& document, const std::string& origin);

// Throws Error unless there is no normalizer and the decoder is byte-level.
void check_normalizer_and_decoder(const nlohmann::json& document, const std::string& origin);

}  // namespace mambify
