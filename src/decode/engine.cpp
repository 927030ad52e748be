#include "decode/engine.h"

#include <ATen/Parallel.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "core/error.h"
#include "decode/stop_strings.h"

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
  bool prefilling = true;
};

Engine::Engine(const Model& model, const Tokenizer* tokenizer, const EngineOptions& options)
    : model_(model),
      packed_(model.embedding.device().is_cpu() ? std::optional<PackedWeights>(model)
                                                : std::nullopt),
      tokenizer_(tokenizer),
      options_(options),
      state_(model.config, options.rows,
             options_.context = options.context > 0 ? options.context : context_limit(model.config),
             model.embedding.options()),
      rows_(options.rows) {}

Engine::~Engine() = default;

void Engine::check(const GenerationRequest& request) const {
  const auto tokens = static_cast<int64_t>(request.prompt.size());
  if (tokens == 0) throw Error("the prompt is empty: the model needs a token to start from");
  if (tokens > options_.context) {
    throw Error("the prompt is {} tokens long, but the context holds {}", tokens, options_.context);
  }
  for (TokenId id : request.prompt) {
    if (id < 0 || id >= model_.config.vocab_size) {
      throw Error("the prompt holds token {}, but the model's vocabulary has {} tokens", id,
                  model_.config.vocab_size);
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
      state_.reset(r);
      row.tokens.clear();
    }
    row.sequence = std::make_unique<Sequence>(std::move(request), tokenizer_);
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
    pass(prefilling, /*prefill=*/true);
  } else {
    pass(decoding, /*prefill=*/false);
  }
  return true;
}

std::vector<TokenId> Engine::draw(const std::vector<int64_t>& rows,
                                  const at::Tensor& hidden) const {
  const at::Tensor scores = logits(model_, hidden, packed_ ? &*packed_ : nullptr)
                                .to(at::TensorOptions(at::kCPU).dtype(at::kFloat))
                                .contiguous();
  const int64_t vocabulary = scores.size(1);
  const float* first = scores.const_data_ptr<float>();
  std::vector<TokenId> drawn(rows.size());
  at::parallel_for(0, scores.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Row& row = rows_[rows[i]];
      const GenerationRequest& request = row.sequence->request;
      drawn[i] =
          sample_token({first + i * vocabulary, static_cast<size_t>(vocabulary)}, request.sampling,
                       request.sequence, static_cast<uint32_t>(row.tokens.size()));
    }
  });
  return drawn;
}

void Engine::pass(const std::vector<int64_t>& rows, bool prefill) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<int64_t> ids, last_indices, last_rows;
  Segments segments{{0}};
  for (int64_t r : rows) {
    const std::vector<TokenId>& tokens = rows_[r].tokens;
    const int64_t begin = state_.lengths[r], all = static_cast<int64_t>(tokens.size());
    const int64_t boundary = (begin / options_.prefill_chunk + 1) * options_.prefill_chunk;
    const int64_t end = std::min(all, boundary);
    ids.insert(ids.end(), tokens.begin() + begin, tokens.begin() + end);
    segments.starts.push_back(static_cast<int64_t>(ids.size()));
    if (end == all) {
      last_indices.push_back(static_cast<int64_t>(ids.size()) - 1);
      last_rows.push_back(r);
    }
  }
  const at::Device device = model_.embedding.device();
  Context context =
      make_context(model_.config, std::move(segments), model_.embedding.options(), &state_, rows);
  if (packed_) context.packed = &*packed_;
  at::Tensor hidden =
      hidden_states(model_, at::tensor(ids, at::kLong).to(device), context, &state_);

  std::vector<TokenId> drawn;
  if (!last_rows.empty()) {
    if (last_indices.size() < ids.size()) {
      hidden = hidden.index_select(0, at::tensor(last_indices, at::kLong).to(device));
    }
    drawn = draw(last_rows, hidden);
  }

  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  for (int64_t r : rows) {
    GenerationResult& result = rows_[r].sequence->result;
    (prefill ? result.prefill_seconds : result.decode_seconds) += seconds.count();
  }
  for (size_t i = 0; i < drawn.size(); ++i) accept(last_rows[i], drawn[i]);
}

void Engine::accept(int64_t r, TokenId token) {
  Row& row = rows_[r];
  Sequence& sequence = *row.sequence;
  const GenerationRequest& request = sequence.request;
  sequence.prefilling = false;
  sequence.result.ids.push_back(token);
  row.tokens.push_back(token);
  if (std::ranges::find(request.stop_ids, token) != request.stop_ids.end()) {
    return finish(r, FinishReason::stop);
  }
  // A model's output matrix may be padded beyond the tokenizer's vocabulary.
  if (sequence.decoder && token < tokenizer_->vocab_size()) {
    sequence.emit(sequence.stop.push(sequence.decoder->push(token)));
    if (sequence.stop.stopped()) return finish(r, FinishReason::stop);
  }
  if (static_cast<int64_t>(sequence.result.ids.size()) >= request.max_tokens ||
      static_cast<int64_t>(row.tokens.size()) >= options_.context) {
    finish(r, FinishReason::length);
  }
}

void Engine::finish(int64_t r, FinishReason reason) {
  Row& row = rows_[r];
  const std::unique_ptr<Sequence> sequence = std::move(row.sequence);
  row.tokens.resize(state_.lengths[r]);
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
