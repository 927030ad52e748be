// Conversations that a teacher writes: the text of sequence-level distillation (Kim and Rush 2016,
// arXiv 1606.07947).
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "decode/engine.h"
#include "text/chat_template.h"

namespace mambify {

using Chat = std::vector<ChatMessage>;

struct SynthesisOptions {
  int64_t tokens = 0;         // of the conversations wanted, at least; templates included
  int64_t max_length = 1024;  // most tokens of one conversation
  int64_t rows = 64;          // conversations written side by side
  // Of what is written, the share that is no conversation but a document as in pretraining, from
  // its beginning: a student that is to do more than chat learns from these what its teacher makes
  // of other text.
  double plain_share = 0;
  SamplingOptions sampling{.temperature = 1};
  const PackedWeights* packed = nullptr;  // the teacher's, as an engine takes them
};

struct SynthesisResult {
  std::vector<Chat> chats;         // in the order of their numbers
  std::vector<std::string> texts;  // the plain documents, likewise
  int64_t tokens = 0;              // of the chats and texts
  // Of them, those that reached max_length and were cut behind their last sentence.
  int64_t cut = 0;
  // Conversations that were left out: longer than max_length, or a turn empty or not plain text.
  int64_t unfinished = 0;
  int64_t malformed = 0;
};

// Each prompt is a conversation up to a user's turn, which the teacher answers; when they are used
// up it starts over with other random numbers, unless it is greedy. Without prompts the teacher
// writes the user's turn too. Throws Error when plain documents are wanted and the vocabulary has
// no token that begins one. Conversation i depends on the seed and i, not on how many are written
// side by side, as far as floating point allows. on_progress gets the tokens so far.
SynthesisResult synthesize(const Model& teacher, const Tokenizer& tokenizer,
                           const ChatTemplate& chat, std::span<const Chat> prompts,
                           const SynthesisOptions& options,
                           const std::function<void(int64_t)>& on_progress = {});

// A model's answer to each prompt, once; none where synthesize would leave the conversation out.
// Options as above, but for the tokens and plain documents, of which there are none. on_progress
// gets the prompts done.
std::vector<std::optional<std::string>> answer_each(
    const Model& model, const Tokenizer& tokenizer, const ChatTemplate& chat,
    std::span<const Chat> prompts, const SynthesisOptions& options,
    const std::function<void(int64_t)>& on_progress = {});

}  // namespace mambify
