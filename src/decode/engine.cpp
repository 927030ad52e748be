#include "decode/engine.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "core/error.h"
#include "decode/stop_strings.h"
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

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

// A request in a row.
struct Engine::Sequence {
  Sequence(GenerationRequest taken, const Tokenizer* tokenizer)
      : request(std::move(taken)), stop(request.stop) {
    if (tokenizer != nullptr) decoder.emplace(*tokenizer);
  }

  void emit(const std::string& certain) {
    if (certain.empty()) return;
    result.text += certain;
    if (request.on_text) request.on_text(certain);
  }

  GenerationRequest request;
  GenerationResult result;
  std::optional<StreamDecoder> decoder;
  StopStrings stop;
  DraftRecord drafts;
  bool prefilling = true;
};

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

int64_t Engine::choose_row(const GenerationRequest& request) const {
  int64_t chosen = -1, longest = -1;
  for (int64_t r = 0; r < static_cast<int64_t>(rows_.size()); ++r) {
    const Row& row = rows_[r];
    if (row.sequence != nullptr) continue;
    const int64_t shared =
        continues(request.prompt, row.tokens) ? static_cast<int64_t>(row.tokens.size()) : -1;
    if (chosen < 0 || shared > longest) {
      chosen = r;
      longest = shared;
    }
  }
  return chosen;
}

void Engine::admit() {
  while (!waiting_.empty()) {
    const int64_t r = choose_row(waiting_.front());
    if (r < 0) return;
    GenerationRequest request = std::move(waiting_.front());
    waiting_.pop_front();
    Row& row = rows_[r];
    if (!continues(request.prompt, row.tokens)) {
      model_rows_->reset(r);
      row.tokens.clear();
    }
    row.sequence = std::make_unique<Sequence>(std::move(request), tokenizer_);
    row.sequence->drafts = draft_lengths_.begin();
    GenerationResult& result = row.sequence->result;
    result.reused_tokens = static_cast<int64_t>(row.tokens.size());
    row.tokens = row.sequence->request.prompt;
    result.prompt_tokens = static_cast<int64_t>(row.tokens.size());
    if (result.prompt_tokens >= options_.context || row.sequence->request.max_tokens <= 0) {
      finish(r, FinishReason::length);
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

std::vector<TokenId> Engine::read_and_draw(const std::vector<RowInput>& inputs,
                                           const std::vector<Draw>& draws) {
  const bool by_rejection = std::ranges::any_of(draws, [&](const Draw& draw) {
    return draw.draft != nullptr && samples_by_rejection(rows_[draw.row].sequence->request);
  });
  if (!by_rejection) {
    std::vector<TokenDraw> tokens;
    tokens.reserve(draws.size());
    for (const Draw& draw : draws) {
      const GenerationRequest& request = rows_[draw.row].sequence->request;
      tokens.push_back({.sampling = request.sampling,
                        .sequence = request.sequence,
                        .position = static_cast<uint32_t>(draw.position)});
    }
    return model_rows_->read_and_draw(inputs, tokens);
  }
  const NextTokenScores scores = model_rows_->read(inputs);
  std::vector<TokenId> drawn(draws.size());
  kernels::parallel_tasks(scores.size(), scores.numbers(),
                          [&](int64_t i) { drawn[i] = draw_one(draws[i], scores[i]); });
  return drawn;
}

bool Engine::samples_by_rejection(const GenerationRequest& request) const {
  return options_.acceptance == Acceptance::distribution && request.sampling.temperature > 0;
}

TokenId Engine::draw_one(const Draw& draw, std::span<const float> scores) const {
  const GenerationRequest& request = rows_[draw.row].sequence->request;
  const auto position = static_cast<uint32_t>(draw.position);
  if (draw.draft == nullptr || !samples_by_rejection(request)) {
    return sample_token(scores, request.sampling, request.sequence, position);
  }
  const TokenId guess = draw.draft->tokens[draw.guess];
  const TokenDistribution target(scores, request.sampling), certain(guess);
  const bool was_drawn = !draw.draft->distributions.empty();
  return accept_or_redraw(guess, was_drawn ? draw.draft->distributions[draw.guess] : certain,
                          target, request.sampling.seed, request.sequence, position);
}

void Engine::prefill(const std::vector<int64_t>& rows) {
  const Stopwatch watch;
  std::vector<RowInput> inputs;
  std::vector<Draw> draws;
  for (int64_t r : rows) {
    const std::vector<TokenId>& tokens = rows_[r].tokens;
    const int64_t begin = model_rows_->length(r), all = static_cast<int64_t>(tokens.size());
    const int64_t boundary = (begin / options_.prefill_chunk + 1) * options_.prefill_chunk;
    const int64_t end = std::min(all, boundary);
    inputs.push_back({.row = r,
                      .tokens = {tokens.begin() + begin, tokens.begin() + end},
                      .scored = end == all ? 1 : 0});
    if (end == all) draws.push_back({.row = r, .position = all});
  }
  const std::vector<TokenId> drawn = read_and_draw(inputs, draws);
  for (int64_t r : rows) rows_[r].sequence->result.prefill_seconds += watch.seconds();
  for (size_t i = 0; i < drawn.size(); ++i) {
    if (const auto reason = accept(draws[i].row, drawn[i])) finish(draws[i].row, *reason);
  }
}

std::vector<int64_t> Engine::draft_lengths(const std::vector<int64_t>& rows) const {
  if (!options_.adapt_draft_length) return std::vector(rows.size(), options_.draft_length);
  std::vector<const DraftRecord*> records;
  for (int64_t r : rows) records.push_back(&rows_[r].sequence->drafts);
  return draft_lengths_.choose(records, options_.draft_length);
}

std::vector<Draft> Engine::guess(const std::vector<int64_t>& rows) {
  std::vector<Draft> guesses(rows.size());
  if (options_.drafter == nullptr) return guesses;
  const std::vector<int64_t> lengths = draft_lengths(rows);
  std::vector<DraftRequest> requests;
  std::vector<size_t> places;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows_[rows[i]];
    const GenerationRequest& request = row.sequence->request;
    const auto drawn = static_cast<int64_t>(row.sequence->result.ids.size());
    const auto tokens = static_cast<int64_t>(row.tokens.size());
    // No more than could become tokens: one is drawn without any guess.
    const int64_t length =
        std::min({lengths[i], request.max_tokens - drawn - 1, options_.context - tokens - 1});
    if (length < 1) continue;
    requests.push_back({.row = rows[i],
                        .tokens = row.tokens,
                        .length = length,
                        .sampling = request.sampling,
                        .sequence = request.sequence,
                        .wants_distributions = samples_by_rejection(request)});
    places.push_back(i);
  }
  std::vector<Draft> drafts = options_.drafter->draft(requests);
  for (size_t i = 0; i < places.size(); ++i) guesses[places[i]] = std::move(drafts[i]);
  return guesses;
}

void Engine::decode(const std::vector<int64_t>& rows) {
  const Stopwatch watch;
  const std::vector<Draft> guesses = guess(rows);
  std::vector<RowInput> inputs;
  std::vector<Draw> draws;
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<TokenId>& tokens = rows_[rows[i]].tokens;
    const std::vector<TokenId>& guess = guesses[i].tokens;
    RowInput input{
        .row = rows[i], .tokens = {tokens.back()}, .drafts = static_cast<int64_t>(guess.size())};
    input.tokens.insert(input.tokens.end(), guess.begin(), guess.end());
    input.scored = static_cast<int64_t>(input.tokens.size());
    for (size_t t = 0; t < input.tokens.size(); ++t) {
      draws.push_back({.row = rows[i],
                       .position = static_cast<int64_t>(tokens.size() + t),
                       .draft = t < guess.size() ? &guesses[i] : nullptr,
                       .guess = t});
    }
    inputs.push_back(std::move(input));
  }
  const std::vector<TokenId> drawn = read_and_draw(inputs, draws);
  const double seconds = watch.seconds();
  draft_lengths_.add_pass(static_cast<int64_t>(draws.size() - rows.size()), seconds);
  for (int64_t r : rows) rows_[r].sequence->result.decode_seconds += seconds;

  const TokenId* next = drawn.data();
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<TokenId>& guess = guesses[i].tokens;
    Sequence& sequence = *rows_[rows[i]].sequence;
    GenerationResult& result = sequence.result;
    std::optional<FinishReason> reason = accept(rows[i], next[0]);
    size_t right = 0;  // guesses that became tokens
    while (!reason && right < guess.size() && next[right] == guess[right]) {
      reason = accept(rows[i], next[++right]);
    }
    model_rows_->commit(rows[i], static_cast<int64_t>(right));
    result.cycles += 1;
    result.drafted += static_cast<int64_t>(guess.size());
    result.accepted += static_cast<int64_t>(right);
    draft_lengths_.add_guesses(sequence.drafts, static_cast<int64_t>(guess.size()),
                               static_cast<int64_t>(right));
    next += guess.size() + 1;
    if (reason) finish(rows[i], *reason);
  }
}

std::optional<FinishReason> Engine::accept(int64_t r, TokenId token) {
  Row& row = rows_[r];
  Sequence& sequence = *row.sequence;
  const GenerationRequest& request = sequence.request;
  sequence.prefilling = false;
  sequence.result.ids.push_back(token);
  row.tokens.push_back(token);
  if (std::ranges::find(request.stop_ids, token) != request.stop_ids.end()) {
    return FinishReason::stop;
  }
  // A model's output matrix may be padded beyond the tokenizer's vocabulary.
  if (sequence.decoder && token < tokenizer_->vocab_size()) {
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
  row.tokens.resize(model_rows_->length(r));
  if (sequence->decoder) {
    sequence->emit(sequence->stop.push(sequence->decoder->finish()));
    if (!sequence->stop.stopped()) sequence->emit(sequence->stop.finish());
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
