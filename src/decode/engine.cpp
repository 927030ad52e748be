#include "decode/engine.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "core/error.h"
#include "decode/engine_sequence.h"
#include "kernels/parallel.h"

namespace mambify {

const char* finish_reason_name(FinishReason reason) {
  return reason == FinishReason::stop ? "stop" : "length";
}

double GenerationResult::prefill_tokens_per_second() const {
  return prefill_seconds > 0 ? (prompt_tokens - reused_tokens) / prefill_seconds : 0;
}

double GenerationResult::decode_tokens_per_second() const {
  return decode_seconds > 0 ? (static_cast<double>(ids.size()) - 1) / decode_seconds : 0;
}

int64_t context_limit(const ModelConfig& config) {
  return config.max_positions > 0 ? config.max_positions : std::numeric_limits<int64_t>::max();
}

namespace {

// At least one token must be left to read, because the logits come from reading it.
bool continues(const std::vector<TokenId>& prompt, const std::vector<TokenId>& held) {
  return held.size() < prompt.size() && std::equal(held.begin(), held.end(), prompt.begin());
}

// Calls body(i) for i of [0, count), rows or what is theirs; on several threads where they are
// many.
template <typename Body>
void for_each_row(size_t count, const Body& body) {
  constexpr size_t kBlock = 32;        // rows that a thread takes at a time
  constexpr size_t kOperations = 512;  // that the memory of a row, far from others', is worth
  const size_t blocks = (count + kBlock - 1) / kBlock;
  kernels::parallel_tasks(static_cast<int64_t>(blocks), static_cast<int64_t>(count * kOperations),
                          [&](int64_t block) {
                            const size_t begin = static_cast<size_t>(block) * kBlock;
                            for (size_t i = begin; i < std::min(count, begin + kBlock); ++i)
                              body(i);
                          });
}

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

Engine::Engine(const Model& model, const Tokenizer* tokenizer, const EngineOptions& options)
    : config_(model.config),
      tokenizer_(tokenizer),
      options_(options),
      model_rows_(make_model_rows(
          model, options.rows,
          options_.context = options.context > 0 ? options.context : context_limit(model.config),
          options.drafter != nullptr ? options.draft_length : 0, options.packed)),
      rows_(options.rows) {
  TORCH_CHECK(options.draft_length >= 0 && options.draft_length <= kMaxDraftLength,
              "a draft length of ", options.draft_length, ", expected 0 to ", kMaxDraftLength);
  if (options_.prefill_chunk == 0) options_.prefill_chunk = model_rows_->prefill_chunk();
}

Engine::~Engine() = default;

void Engine::check(const GenerationRequest& request) const {
  const auto tokens = static_cast<int64_t>(request.prompt.size());
  if (tokens == 0) throw Error("the prompt is empty: the model needs a token to start from");
  if (tokens > options_.context) {
    throw Error("the prompt is {} tokens long, but the context holds {}", tokens, options_.context);
  }
  for (TokenId id : request.prompt) {
    if (id < 0 || id >= config_.vocab_size) {
      throw Error("the prompt holds token {}, but the model's vocabulary has {} tokens", id,
                  config_.vocab_size);
    }
  }
  request.sampling.check();
  StopStrings{request.stop};
}

void Engine::submit(GenerationRequest request) {
  check(request);
  waiting_.push_back(std::move(request));
}

void Engine::submit_first(GenerationRequest request) {
  check(request);
  waiting_.push_front(std::move(request));
}

void Engine::pretend(int64_t row, std::vector<TokenId> tokens) {
  TORCH_CHECK(rows_[row].sequence == nullptr, "row ", row, " decodes a sequence");
  model_rows_->pretend(row, static_cast<int64_t>(tokens.size()));
  rows_[row].tokens = std::move(tokens);
}

int64_t Engine::unfinished() const {
  return static_cast<int64_t>(waiting_.size()) +
         std::ranges::count_if(rows_, [](const Row& row) { return row.sequence != nullptr; });
}

std::vector<int64_t>::iterator Engine::choose_row(const GenerationRequest& request,
                                                  std::vector<int64_t>& free) const {
  auto chosen = free.begin();
  int64_t longest = -1;
  for (auto it = free.begin(); it != free.end(); ++it) {
    const std::vector<TokenId>& held = rows_[*it].tokens;
    const int64_t shared = continues(request.prompt, held) ? std::ssize(held) : -1;
    if (shared <= longest) continue;
    chosen = it;
    longest = shared;
  }
  return chosen;
}

void Engine::admit() {
  if (waiting_.empty()) return;
  std::vector<int64_t> free;
  for (int64_t r = 0; r < std::ssize(rows_); ++r) {
    if (rows_[r].sequence == nullptr) free.push_back(r);
  }
  while (!waiting_.empty() && !free.empty()) {
    const auto chosen = choose_row(waiting_.front(), free);
    const int64_t r = *chosen;
    GenerationRequest request = std::move(waiting_.front());
    waiting_.pop_front();
    Row& row = rows_[r];
    if (!continues(request.prompt, row.tokens)) {
      model_rows_->reset(r);
      row.tokens.clear();
    }
    row.sequence = std::make_unique<Sequence>(std::move(request), tokenizer_);
    heard_ += row.sequence->is_heard();
    row.sequence->drafts = draft_lengths_.begin();
    GenerationResult& result = row.sequence->result;
    result.reused_tokens = static_cast<int64_t>(row.tokens.size());
    row.tokens = row.sequence->request.prompt;
    result.prompt_tokens = static_cast<int64_t>(row.tokens.size());
    if (result.prompt_tokens >= options_.context || row.sequence->request.max_tokens <= 0) {
      finish(r, FinishReason::length);
    } else {
      free.erase(chosen);
    }
  }
}

bool Engine::step() {
  const c10::InferenceMode inference;
  admit();
  std::vector<int64_t> prefilling, decoding;
  for (int64_t r = 0; r < static_cast<int64_t>(rows_.size()); ++r) {
    if (rows_[r].sequence == nullptr) continue;
    (rows_[r].sequence->prefilling ? prefilling : decoding).push_back(r);
  }
  if (prefilling.empty() && decoding.empty()) return false;
  const auto ready = static_cast<int64_t>(prefilling.size());
  if (decoding.empty() || (ready > 0 && ready >= options_.min_prefill)) {
    prefill(prefilling);
  } else {
    decode(decoding);
  }
  return true;
}

TokenDraw Engine::draw_behind(int64_t row, size_t tokens) const {
  const GenerationRequest& request = rows_[row].sequence->request;
  return {.sampling = request.sampling,
          .sequence = request.sequence,
          .position = static_cast<uint32_t>(tokens)};
}

void Engine::prefill(const std::vector<int64_t>& rows) {
  const Stopwatch watch;
  std::vector<RowInput> inputs;
  std::vector<GuessedDraw> draws;
  std::vector<int64_t> read;  // rows whose prompts end
  for (int64_t r : rows) {
    const std::vector<TokenId>& tokens = rows_[r].tokens;
    const int64_t begin = model_rows_->length(r), all = static_cast<int64_t>(tokens.size());
    const int64_t boundary = (begin / options_.prefill_chunk + 1) * options_.prefill_chunk;
    const int64_t end = std::min(all, boundary);
    inputs.push_back({.row = r,
                      .tokens = std::span(tokens).subspan(begin, end - begin),
                      .scored = end == all ? 1 : 0});
    if (end < all) continue;
    draws.push_back({.draw = draw_behind(r, tokens.size())});
    read.push_back(r);
  }
  const std::vector<TokenId> drawn = read_and_draw(*model_rows_, inputs, draws);
  for (int64_t r : rows) rows_[r].sequence->result.prefill_seconds += watch.seconds();
  for (size_t i = 0; i < drawn.size(); ++i) {
    if (const auto reason = accept(read[i], drawn[i])) finish(read[i], *reason);
  }
}

void Engine::decode(const std::vector<int64_t>& rows) {
  const Stopwatch watch;
  const std::vector<Guess> guesses = guess(rows);
  const double draft_seconds = watch.seconds();
  std::vector<size_t> first_draws;
  size_t n_draws = 0;
  for (const Guess& guess : guesses) {
    first_draws.push_back(n_draws);
    n_draws += guess.draft.tokens.size() + 1;
  }
  std::vector<RowInput> inputs(rows.size());
  std::vector<TokenId> read(n_draws);
  std::vector<GuessedDraw> draws(n_draws);
  for_each_row(rows.size(), [&](size_t i) {
    const std::vector<TokenId>& tokens = rows_[rows[i]].tokens;
    const std::vector<TokenId>& guess = guesses[i].draft.tokens;
    const std::span<TokenId> own = std::span(read).subspan(first_draws[i], guess.size() + 1);
    own[0] = tokens.back();
    std::ranges::copy(guess, own.begin() + 1);
    inputs[i] = {
        .row = rows[i], .tokens = own, .drafts = std::ssize(guess), .scored = std::ssize(own)};
    for (size_t t = 0; t < own.size(); ++t) {
      GuessedDraw& draw = draws[first_draws[i] + t];
      draw = {.draw = draw_behind(rows[i], tokens.size() + t), .guess = t};
      if (t < guess.size() && samples_by_rejection(options_.acceptance, draw.draw.sampling)) {
        draw.draft = &guesses[i].draft;
      }
    }
  });
  const std::vector<TokenId> drawn = read_and_draw(*model_rows_, inputs, draws);
  const double seconds = watch.seconds();
  std::vector<Outcome> outcomes(rows.size());
  const auto take = [&](size_t i) {
    const std::vector<TokenId>& guess = guesses[i].draft.tokens;
    const TokenId* next = drawn.data() + first_draws[i];
    Outcome& outcome = outcomes[i];
    outcome.reason = accept(rows[i], next[0]);
    while (!outcome.reason && outcome.right < std::ssize(guess) &&
           next[outcome.right] == guess[outcome.right]) {
      outcome.reason = accept(rows[i], next[++outcome.right]);
    }
    model_rows_->commit(rows[i], outcome.right);
    GenerationResult& result = rows_[rows[i]].sequence->result;
    result.decode_seconds += seconds;
    result.cycles += 1;
    if (!guess.empty()) result.drafting += 1;
    result.drafted += std::ssize(guess);
    result.accepted += outcome.right;
  };
  if (heard_ > 0) {
    for (size_t i = 0; i < rows.size(); ++i) take(i);
  } else {
    for_each_row(rows.size(), take);
  }
  if (options_.drafter != nullptr) add_to_records(rows, guesses, outcomes, draft_seconds, seconds);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (outcomes[i].reason) finish(rows[i], *outcomes[i].reason);
  }
}

bool Engine::has_text(TokenId token) const { return token < tokenizer_->vocab_size(); }

std::optional<FinishReason> Engine::accept(int64_t r, TokenId token) {
  Row& row = rows_[r];
  Sequence& sequence = *row.sequence;
  const GenerationRequest& request = sequence.request;
  // Written once: step() reads it of every row, which must not wait for another thread's write.
  if (sequence.prefilling) sequence.prefilling = false;
  sequence.result.ids.push_back(token);
  row.tokens.push_back(token);
  if (std::ranges::find(request.stop_ids, token) != request.stop_ids.end()) {
    return FinishReason::stop;
  }
  if (sequence.decoder && has_text(token)) {
    sequence.emit(sequence.stop.push(sequence.decoder->push(token)));
    if (sequence.stop.stopped()) return FinishReason::stop;
  }
  if (static_cast<int64_t>(sequence.result.ids.size()) >= request.max_tokens ||
      static_cast<int64_t>(row.tokens.size()) >= options_.context) {
    return FinishReason::length;
  }
  return std::nullopt;
}

void Engine::finish(int64_t r, FinishReason reason) {
  Row& row = rows_[r];
  const std::unique_ptr<Sequence> sequence = std::move(row.sequence);
  heard_ -= sequence->is_heard();
  row.tokens.resize(model_rows_->length(r));
  if (sequence->decoder) {
    sequence->emit(sequence->stop.push(sequence->decoder->finish()));
    if (!sequence->stop.stopped()) sequence->emit(sequence->stop.finish());
  } else if (tokenizer_ != nullptr) {
    std::vector<TokenId> ids = sequence->result.ids;
    if (reason == FinishReason::stop) ids.pop_back();
    std::erase_if(ids, [&](TokenId token) { return !has_text(token); });
    sequence->result.text = tokenizer_->decode(ids);
  }
  sequence->result.finish_reason = sequence->stop.stopped() ? FinishReason::stop : reason;
  if (sequence->request.on_finish) sequence->request.on_finish(std::move(sequence->result));
}

std::vector<GenerationResult> generate(Engine& engine, std::vector<GenerationRequest> requests) {
  std::vector<GenerationResult> results(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].on_finish = [&results, i](GenerationResult result) {
      results[i] = std::move(result);
    };
    engine.submit(std::move(requests[i]));
  }
  engine.run();
  return results;
}

}  // namespace mambify
