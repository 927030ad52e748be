// Conversations in which a model answers what a user says, turn by turn, many side by side.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "decode/engine.h"
#include "eval/tasks/questions.h"
#include "text/chat_template.h"

namespace mambify {

// What a model answers to the turns of a question.
struct Answer {
  std::vector<std::string> turns;  // without special tokens, nor white space at the ends
  std::vector<int64_t> tokens;     // of each
  int64_t cut = 0;                 // turns that reached max_tokens or the end of the context
  // Turns that are empty because the conversation before them fills the context.
  int64_t without_room = 0;
};

struct AnswerOptions {
  std::string system;         // "": none but what the template has itself
  int64_t max_tokens = 1024;  // of one turn
};

// What is to be asked: a question with its number, which tells its random numbers from those of
// others, and how its answer is drawn.
struct AnswerJob {
  int64_t number = 0;
  const Question* question = nullptr;
  SamplingOptions sampling;
};

// The context that the longest of these conversations may need.
int64_t answers_context(std::span<const AnswerJob> jobs, const AnswerOptions& options,
                        const Tokenizer& tokenizer, const ChatTemplate& chat);

// Answers all; on_answer is called once for each as it is finished. An answer depends on the seed
// and the number of its question, not on what is answered beside it.
void answer_questions(Engine& engine, const Tokenizer& tokenizer, const ChatTemplate& chat,
                      std::span<const AnswerJob> jobs, const AnswerOptions& options,
                      const std::function<void(const AnswerJob&, Answer)>& on_answer);

}  // namespace mambify
