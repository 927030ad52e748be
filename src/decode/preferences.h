// Preference pairs without judges: the teacher's answer is preferred to the student's own.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "data/pairs.h"
#include "decode/synthesize.h"

namespace mambify {

struct Preferences {
  std::vector<PreferencePair> pairs;
  // Conversations that gave none: the student's answer was longer than max_length, empty or not
  // plain text; or it was the teacher's.
  int64_t unanswered = 0;
  int64_t equal = 0;
};

// taught: conversations that end with the teacher's answer. The student answers each of them anew.
// on_progress gets the conversations done. Otherwise as answer_each.
Preferences prefer_teacher(std::span<const Chat> taught, const Model& student,
                           const Tokenizer& tokenizer, const ChatTemplate& chat,
                           const SynthesisOptions& options,
                           const std::function<void(int64_t)>& on_progress = {});

}  // namespace mambify
