// The tokens that end what a model generates.
#pragma once

#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace mambify {

// Those that end a text, and with a template those that end an assistant's turn.
std::vector<TokenId> generation_stop_ids(const Tokenizer& tokenizer,
                                         const ChatTemplate* chat = nullptr);

}  // namespace mambify
