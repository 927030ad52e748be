#include "decode/preferences.h"

#include <utility>

namespace mambify {

Preferences prefer_teacher(std::span<const Chat> taught, const Model& student,
                           const Tokenizer& tokenizer, const ChatTemplate& chat,
                           const SynthesisOptions& options,
                           const std::function<void(int64_t)>& on_progress) {
  std::vector<Chat> prompts;
  for (const Chat& conversation : taught) {
    prompts.emplace_back(conversation.begin(), conversation.end() - 1);
  }
  const auto answers = answer_each(student, tokenizer, chat, prompts, options, on_progress);
  Preferences result;
  for (size_t i = 0; i < taught.size(); ++i) {
    const ChatMessage& chosen = taught[i].back();
    if (!answers[i]) {
      ++result.unanswered;
    } else if (*answers[i] == chosen.content) {
      ++result.equal;
    } else {
      result.pairs.push_back({std::move(prompts[i]), {chosen}, {{chosen.role, *answers[i]}}});
    }
  }
  return result;
}

}  // namespace mambify
