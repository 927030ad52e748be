#include "decode/synthesize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"

namespace mambify {
namespace {

// The template's tokens around a user's turn that opens a conversation.
struct UserTurnFrame {
  UserTurnFrame(const ChatTemplate& chat, const Tokenizer& tokenizer) {
    const std::string placeholder = "\x01";
    const std::string text = chat.render({{"user", placeholder}}, /*add_generation_prompt=*/true);
    const size_t at = text.find(placeholder);
    before = tokenizer.encode(text.substr(0, at));
    after = tokenizer.encode(text.substr(at + placeholder.size()));
  }
  std::vector<TokenId> before, after;
};

// One conversation: where it stands and how it ended.
struct Draft {
  Chat messages;     // or
  std::string text;  // of a plain document
  int64_t tokens = 0;
  bool cut = false, unfinished = false, malformed = false;
  bool done = false;

  bool kept() const { return done && !unfinished && !malformed; }
};

// The text up to the end of its last sentence or line, "" when that loses more than half of it.
std::string whole_sentences(const std::string& text) {
  for (size_t end = text.size(); end > text.size() / 2; --end) {
    const bool line_ends = end < text.size() && text[end] == '\n';
    const bool sentence_ends = end < text.size() && text[end] == ' ' &&
                               std::string_view(".!?").find(text[end - 1]) != std::string::npos;
    if (line_ends || sentence_ends) return text.substr(0, text.find_last_not_of(" \n", end) + 1);
  }
  return "";
}

// What stands between the documents that a model was pretrained on; none where plain documents are
// not wanted.
std::optional<TokenId> document_separator(const Tokenizer& tokenizer, double plain_share) {
  if (plain_share == 0) return std::nullopt;
  for (const char* name : {"<|endoftext|>", "<|begin_of_text|>", "<s>"}) {
    const std::vector<TokenId> ids = tokenizer.encode(name);
    if (ids.size() == 1 && tokenizer.is_special(ids.front())) return ids.front();
  }
  throw Error(
      "the vocabulary has no token that begins a document, so no plain text can be written");
}

class Writer {
 public:
  // once: no prompt is answered a second time.
  Writer(const Model& teacher, const Tokenizer& tokenizer, const ChatTemplate& chat,
         std::span<const Chat> prompts, const SynthesisOptions& options, bool once)
      : tokenizer_(tokenizer),
        chat_(chat),
        prompts_(prompts),
        options_(options),
        once_(once || options.sampling.temperature == 0),
        frame_(chat, tokenizer),
        turn_ends_(chat.turn_end_ids(tokenizer)),
        separator_(document_separator(tokenizer, options.plain_share)),
        // A prompt of a few tokens costs a pass over all weights, so several are read together.
        engine_(teacher, &tokenizer,
                {.rows = options.rows,
                 .context = options.max_length,
                 .min_prefill = std::clamp<int64_t>(options.rows / 8, 1, 128),
                 .packed = options.packed}) {}

  SynthesisResult write(const std::function<void(int64_t)>& on_progress) {
    do {
      launch();
      collect();
      if (on_progress) on_progress(std::min(finished_tokens_, options_.tokens));
    } while (result_.tokens < options_.tokens && (engine_.step() || launch()));
    return std::move(result_);
  }

  std::vector<std::optional<std::string>> answer_each(
      const std::function<void(int64_t)>& on_progress) {
    do {
      launch();
      if (on_progress) on_progress(finished_);
    } while (engine_.step() || launch());
    std::vector<std::optional<std::string>> answers;
    for (Draft& draft : drafts_) {
      answers.push_back(draft.kept() ? std::optional(std::move(draft.messages.back().content))
                                     : std::nullopt);
    }
    return answers;
  }

 private:
  // Starts conversations while rows are free and those that were started are not expected to be
  // enough. True when it started one.
  bool launch() {
    bool launched = false;
    while (running_ < options_.rows && more_prompts()) {
      if (running_ > 0 && is_enough()) break;
      start(static_cast<int64_t>(drafts_.size()));
      launched = true;
    }
    return launched;
  }

  // What those that are done have on average would be too little, as short ones are done first: the
  // mean is that of the first ones, all of which are done, and at first half of what they may have.
  bool is_enough() const {
    constexpr double kGuesses = 16;  // conversations that this first guess is worth
    const double guess = kGuesses * static_cast<double>(options_.max_length) / 2;
    const double mean = (guess + static_cast<double>(result_.tokens)) /
                        (kGuesses + static_cast<double>(collected_));
    const auto started = static_cast<double>(drafts_.size());
    return (started - std::sqrt(started)) * mean >= static_cast<double>(options_.tokens);
  }

  bool more_prompts() const {
    return prompts_.empty() || !once_ || drafts_.size() < prompts_.size();
  }

  void start(int64_t number) {
    Draft& draft = drafts_.emplace_back();
    ++running_;
    if (is_plain(number)) return tell(number);
    if (prompts_.empty()) return ask(number);
    draft.messages = prompts_[number % prompts_.size()];
    answer(number, chat_.tokenize(draft.messages, /*add_generation_prompt=*/true, tokenizer_).ids);
  }

  bool is_plain(int64_t number) const {
    const auto before = [&](int64_t n) {
      return std::floor(static_cast<double>(n) * options_.plain_share);
    };
    return before(number + 1) > before(number);
  }

  // The teacher writes a plain document.
  void tell(int64_t number) {
    GenerationRequest request = request_for(number, {*separator_});
    request.stop_ids.push_back(*separator_);
    request.on_finish = [this, number](GenerationResult document) {
      cut_to_sentences(number, document);
      if (check(number, document)) {
        drafts_[number].text = std::move(document.text);
        drafts_[number].tokens = std::ssize(document.ids);
        end(number);
      }
    };
    engine_.submit(std::move(request));
  }

  // The teacher writes the user's turn.
  void ask(int64_t number) {
    GenerationRequest request = request_for(number, frame_.before);
    request.on_finish = [this, number](const GenerationResult& turn) {
      if (!take(number, "user", turn)) return;
      std::vector<TokenId> ids = frame_.before;
      ids.insert(ids.end(), turn.ids.begin(), turn.ids.end() - 1);
      ids.insert(ids.end(), frame_.after.begin(), frame_.after.end());
      answer(number, std::move(ids));
    };
    engine_.submit(std::move(request));
  }

  void answer(int64_t number, std::vector<TokenId> prompt) {
    if (static_cast<int64_t>(prompt.size()) >= options_.max_length) {
      drafts_[number].unfinished = true;
      return end(number);
    }
    GenerationRequest request = request_for(number, std::move(prompt));
    request.on_finish = [this, number](GenerationResult turn) {
      cut_to_sentences(number, turn);
      if (!take(number, "assistant", turn)) return;
      drafts_[number].tokens = turn.prompt_tokens + static_cast<int64_t>(turn.ids.size());
      end(number);
    };
    // First: the row that wrote the user's turn is still free and holds its state.
    engine_.submit_first(std::move(request));
  }

  GenerationRequest request_for(int64_t number, std::vector<TokenId> prompt) const {
    GenerationRequest request;
    request.prompt = std::move(prompt);
    request.max_tokens = options_.max_length;
    request.stop_ids = turn_ends_;
    request.sampling = options_.sampling;
    request.sequence = static_cast<uint32_t>(number);
    return request;
  }

  // What reached the length ends behind its last sentence.
  void cut_to_sentences(int64_t number, GenerationResult& turn) {
    if (turn.finish_reason != FinishReason::length) return;
    turn.text = whole_sentences(turn.text);
    if (turn.text.empty()) return;
    turn.finish_reason = FinishReason::stop;
    drafts_[number].cut = true;
  }

  // Adds a turn; false when it ended the conversation because it is of no use.
  bool take(int64_t number, const char* role, const GenerationResult& turn) {
    if (!check(number, turn)) return false;
    drafts_[number].messages.push_back({role, turn.text});
    return true;
  }

  // Whether a text is of use; ends what it belongs to when it is not.
  bool check(int64_t number, const GenerationResult& turn) {
    Draft& draft = drafts_[number];
    draft.unfinished = turn.finish_reason != FinishReason::stop;
    // Text that is not what the tokens were would be trained on as other tokens.
    draft.malformed =
        !draft.unfinished && (turn.text.find_first_not_of(" \t\r\n") == std::string::npos ||
                              turn.text.find("\uFFFD") != std::string::npos ||
                              std::any_of(turn.ids.begin(), turn.ids.end() - 1,
                                          [&](TokenId id) { return tokenizer_.is_special(id); }));
    if (draft.unfinished || draft.malformed) {
      end(number);
      return false;
    }
    return true;
  }

  void end(int64_t number) {
    Draft& draft = drafts_[number];
    draft.done = true;
    --running_;
    ++finished_;
    if (draft.kept()) finished_tokens_ += draft.tokens;
    constexpr int64_t kHopeless = 256;
    if (finished_tokens_ == 0 && finished_ >= kHopeless) {
      throw Error(
          "none of {} texts came to an end within {} tokens (--max-length): is this a chat model, "
          "and is this its chat template?",
          finished_, options_.max_length);
    }
  }

  // Moves conversations to the result in the order of their numbers until it has tokens enough, so
  // that what is kept does not depend on which were written faster.
  void collect() {
    for (; collected_ < drafts_.size() && drafts_[collected_].done &&
           result_.tokens < options_.tokens;
         ++collected_) {
      Draft& draft = drafts_[collected_];
      result_.unfinished += draft.unfinished;
      result_.malformed += draft.malformed;
      if (!draft.kept()) continue;
      result_.cut += draft.cut;
      result_.tokens += draft.tokens;
      if (draft.messages.empty()) {
        result_.texts.push_back(std::move(draft.text));
      } else {
        result_.chats.push_back(std::move(draft.messages));
      }
    }
  }

  const Tokenizer& tokenizer_;
  const ChatTemplate& chat_;
  std::span<const Chat> prompts_;
  const SynthesisOptions options_;
  const bool once_;
  const UserTurnFrame frame_;
  const std::vector<TokenId> turn_ends_;
  const std::optional<TokenId> separator_;
  Engine engine_;
  std::vector<Draft> drafts_;
  size_t collected_ = 0;
  int64_t running_ = 0, finished_ = 0, finished_tokens_ = 0;
  SynthesisResult result_;
};

void check(std::span<const Chat> prompts, const SynthesisOptions& options) {
  options.sampling.check();
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (prompts[i].empty() || prompts[i].back().role != "user") {
      throw Error("prompt {} does not end with a user's turn", i + 1);
    }
  }
}

}  // namespace

SynthesisResult synthesize(const Model& teacher, const Tokenizer& tokenizer,
                           const ChatTemplate& chat, std::span<const Chat> prompts,
                           const SynthesisOptions& options,
                           const std::function<void(int64_t)>& on_progress) {
  check(prompts, options);
  return Writer(teacher, tokenizer, chat, prompts, options, /*once=*/false).write(on_progress);
}

std::vector<std::optional<std::string>> answer_each(
    const Model& model, const Tokenizer& tokenizer, const ChatTemplate& chat,
    std::span<const Chat> prompts, const SynthesisOptions& options,
    const std::function<void(int64_t)>& on_progress) {
  check(prompts, options);
  if (prompts.empty()) return {};
  SynthesisOptions all = options;
  all.tokens = std::numeric_limits<int64_t>::max();
  all.plain_share = 0;
  return Writer(model, tokenizer, chat, prompts, all, /*once=*/true).answer_each(on_progress);
}

}  // namespace mambify
