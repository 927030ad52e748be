#include "eval/answers/answer_questions.h"

#include <algorithm>
#include <utility>

#include "decode/stop_ids.h"
#include "eval/tasks/white_space.h"

namespace mambify {
namespace {

std::vector<ChatMessage> opening(const AnswerOptions& options) {
  if (options.system.empty()) return {};
  return {{"system", options.system}};
}

// One conversation at a time for each row of the engine; each has its own state.
class Interview {
 public:
  Interview(Engine& engine, const Tokenizer& tokenizer, const ChatTemplate& chat,
            const AnswerOptions& options,
            const std::function<void(const AnswerJob&, Answer)>& on_answer)
      : engine_(engine),
        tokenizer_(tokenizer),
        chat_(chat),
        options_(options),
        on_answer_(on_answer),
        stop_ids_(generation_stop_ids(tokenizer, &chat)) {}

  void start(const AnswerJob& job) { ask({job, {}, opening(options_)}); }

 private:
  struct Conversation {
    AnswerJob job;
    Answer answer;
    std::vector<ChatMessage> messages;
  };

  // Asks the next turn, or hands the answer over when there is none.
  void ask(Conversation conversation) {
    const std::vector<std::string>& turns = conversation.job.question->turns;
    const size_t turn = conversation.answer.turns.size();
    if (turn == turns.size()) {
      return on_answer_(conversation.job, std::move(conversation.answer));
    }
    conversation.messages.push_back({"user", turns[turn]});
    GenerationRequest request;
    request.prompt =
        chat_.tokenize(conversation.messages, /*add_generation_prompt=*/true, tokenizer_).ids;
    if (std::ssize(request.prompt) >= engine_.context()) {
      ++conversation.answer.without_room;
      return take(std::move(conversation), "", 0);
    }
    request.max_tokens = options_.max_tokens;
    request.stop_ids = stop_ids_;
    request.sampling = conversation.job.sampling;
    request.sequence = static_cast<uint32_t>(conversation.job.number);
    request.on_finish = [this,
                         conversation = std::move(conversation)](const GenerationResult& result) {
      Conversation next = conversation;
      next.answer.cut += result.finish_reason == FinishReason::length ? 1 : 0;
      take(std::move(next), text_of(result), std::ssize(result.ids));
    };
    // A next turn first: the row that wrote the last one is still free and holds its state.
    if (turn == 0) {
      engine_.submit(std::move(request));
    } else {
      engine_.submit_first(std::move(request));
    }
  }

  void take(Conversation conversation, std::string text, int64_t tokens) {
    conversation.messages.push_back({"assistant", text});
    conversation.answer.turns.push_back(std::move(text));
    conversation.answer.tokens.push_back(tokens);
    ask(std::move(conversation));
  }

  std::string text_of(const GenerationResult& result) const {
    std::vector<TokenId> ids = result.ids;
    // A model's output matrix may be padded beyond the tokenizer's vocabulary.
    std::erase_if(ids, [&](TokenId id) {
      return id >= tokenizer_.vocab_size() || tokenizer_.is_special(id);
    });
    return std::string(trim(tokenizer_.decode(ids)));
  }

  Engine& engine_;
  const Tokenizer& tokenizer_;
  const ChatTemplate& chat_;
  const AnswerOptions& options_;
  const std::function<void(const AnswerJob&, Answer)>& on_answer_;
  const std::vector<TokenId> stop_ids_;
};

}  // namespace

int64_t answers_context(std::span<const AnswerJob> jobs, const AnswerOptions& options,
                        const Tokenizer& tokenizer, const ChatTemplate& chat) {
  int64_t longest = 0;
  for (const AnswerJob& job : jobs) {
    std::vector<ChatMessage> messages = opening(options);
    for (const std::string& turn : job.question->turns) {
      messages.push_back({"user", turn});
      messages.push_back({"assistant", ""});
    }
    const auto frame = chat.tokenize(messages, /*add_generation_prompt=*/true, tokenizer).ids;
    longest = std::max<int64_t>(
        longest, std::ssize(frame) + std::ssize(job.question->turns) * options.max_tokens);
  }
  return longest;
}

void answer_questions(Engine& engine, const Tokenizer& tokenizer, const ChatTemplate& chat,
                      std::span<const AnswerJob> jobs, const AnswerOptions& options,
                      const std::function<void(const AnswerJob&, Answer)>& on_answer) {
  Interview interview(engine, tokenizer, chat, options, on_answer);
  for (const AnswerJob& job : jobs) interview.start(job);
  engine.run();
}

}  // namespace mambify
