// Decodes many sequences side by side over one model state; a row whose sequence ends takes the
// next waiting request at once (continuous batching).
//
// A pass reads for each row the token that was drawn last and what a drafter guesses to follow it,
// and the model itself draws what follows each of them: guesses are right as long as they are what
// it draws. Without a drafter that is plain decoding. Tokens and states are the same bits
// with any drafter, in any company; with Acceptance::distribution, tokens are distributed as
// those of plain decoding instead.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "decode/acceptance.h"
#include "decode/draft_length.h"
#include "decode/drafter.h"
#include "decode/model_rows.h"
#include "decode/sampler.h"
#include "text/tokenizer.h"

namespace mambify {

enum class FinishReason {
  stop,    // an end token or a stop string
  length,  // max_tokens, or the context is full
};
const char* finish_reason_name(FinishReason reason);

struct GenerationResult {
  std::vector<TokenId> ids;  // every token drawn, the end token included
  std::string text;          // without the end token, cut before a stop string
  FinishReason finish_reason = FinishReason::length;
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;   // of the prompt, already in the row's state
  double prefill_seconds = 0;  // passes that read the prompt; the last draws the first token
  double decode_seconds = 0;   // passes that drew the others
  int64_t cycles = 0;          // passes that drew the others, too
  int64_t drafting = 0;        // cycles for which a drafter guessed
  int64_t drafted = 0;         // tokens that it guessed in them
  int64_t accepted = 0;        // and that became tokens of the sequence

  // 0 where nothing was timed.
  double prefill_tokens_per_second() const;
  double decode_tokens_per_second() const;
};

struct GenerationRequest {
  std::vector<TokenId> prompt;
  int64_t max_tokens = 256;
  std::vector<TokenId> stop_ids;  // tokens that end the sequence; none: it runs to its length
  std::vector<std::string> stop;  // strings that end it
  SamplingOptions sampling;
  uint32_t sequence = 0;  // tells the random numbers of one request from those of another
  // New text that is certain: whole characters, never the beginning of a stop string. Optional.
  std::function<void(std::string_view)> on_text;
  // Called once, from step(); may submit further requests. Optional.
  std::function<void(GenerationResult)> on_finish;
};

struct EngineOptions {
  int64_t rows = 1;         // sequences decoded side by side
  int64_t context = 0;      // most tokens of a sequence, prompt included; 0: context_limit()
  int64_t min_prefill = 1;  // while others decode, prompts wait until so many can be read together
  // Prompts are read in chunks that end at multiples of this, whatever was in the state before, so
  // that a position is always computed in the same chunk. 0: as is best on the device.
  int64_t prefill_chunk = 0;
  Drafter* drafter = nullptr;  // must outlive the engine; null: plain decoding
  int64_t draft_length = 0;    // most tokens that it guesses in a pass
  // Guess fewer where that is faster, going by the time that passes take: with
  // Acceptance::distribution other tokens come out of each run.
  bool adapt_draft_length = false;
  // How likely a guess must be for the drafter to give it: see DraftRequest. Unset: as likely as
  // pays, where draft lengths are adapted and the likeliest token is taken, else 0: a token that is
  // drawn with the numbers that the model draws with is right more often than it is likely.
  std::optional<double> min_draft_probability = {};
  Acceptance acceptance = Acceptance::exact;
  // The model's weights as they are multiplied, where they are; must outlive the engine. Null: the
  // engine packs them as they are, on the CPU.
  const PackedWeights* packed = nullptr;
};
// The most that fit in a pass beside the token they follow.
inline constexpr int64_t kMaxDraftLength = kMostTokensAlone - 1;

// The longest sequence the model may see; the largest int64_t when nothing limits it.
int64_t context_limit(const ModelConfig& config);

class Engine {
 public:
  // tokenizer: may be null; results then hold ids alone and stop strings are not seen. Both model
  // and tokenizer must outlive the engine.
  Engine(const Model& model, const Tokenizer* tokenizer, const EngineOptions& options);
  ~Engine();

  // Queues a request behind those that wait, or before them. When its prompt continues what a free
  // row holds, only the rest is read (a conversation's next turn). Throws Error for an empty
  // prompt, one longer than the context, and tokens outside the vocabulary.
  void submit(GenerationRequest request);
  void submit_first(GenerationRequest request);

  // One pass over the model; false when there was nothing to do.
  bool step();
  void run() {
    while (step()) {
    }
  }

  // Most tokens of a sequence, prompt included.
  int64_t context() const { return options_.context; }
  // Requests that are being decoded or wait.
  int64_t unfinished() const;
  // For measurements: a free row is as if it had read these tokens. A prompt that continues them
  // is read from there on.
  void pretend(int64_t row, std::vector<TokenId> tokens);
  // Of the rows' states and caches, and what passes work in.
  int64_t bytes() const { return model_rows_->bytes(); }
  // The rows' states, brought up to what the sequences have read; for comparing them.
  const ModelState& materialise() { return model_rows_->materialise(); }

 private:
  struct Sequence;
  struct Row {
    // What the state holds, in order; with a sequence, also what it is about to hold.
    std::vector<TokenId> tokens;
    std::unique_ptr<Sequence> sequence;
  };

  void check(const GenerationRequest& request) const;
  void admit();
  // Of the free rows, of which there is one, that whose tokens are the longest beginning of the
  // prompt, else the first.
  std::vector<int64_t>::iterator choose_row(const GenerationRequest& request,
                                            std::vector<int64_t>& free) const;
  // Reads the next chunk of each row's prompt, and draws the first token behind those that end.
  void prefill(const std::vector<int64_t>& rows);
  // Reads the last token of each row and guesses on what follows, and draws what does.
  void decode(const std::vector<int64_t>& rows);
  // What a drafter guessed for a row, of so many tokens at most.
  struct Guess {
    Draft draft;
    int64_t wanted = 0;
  };
  // For each row; all empty without a drafter.
  std::vector<Guess> guess(const std::vector<int64_t>& rows);
  // What is to be guessed for each row.
  DraftPlan plan_drafts(const std::vector<int64_t>& rows) const;
  // How what follows so many tokens of a row is drawn.
  TokenDraw draw_behind(int64_t row, size_t tokens) const;
  // What a pass made of a row's guesses.
  struct Outcome {
    int64_t right = 0;  // guesses that became tokens
    std::optional<FinishReason> reason;
  };
  // Notes what became of the guesses and how long a pass took, drafting and all.
  void add_to_records(const std::vector<int64_t>& rows, const std::vector<Guess>& guesses,
                      const std::vector<Outcome>& outcomes, double draft_seconds, double seconds);
  // Whether the tokenizer knows a token: a model's output matrix may be padded beyond its
  // vocabulary.
  bool has_text(TokenId token) const;
  // Appends a token that was drawn; what ends the sequence, if it does.
  std::optional<FinishReason> accept(int64_t row, TokenId token);
  void finish(int64_t row, FinishReason reason);

  const ModelConfig& config_;
  const Tokenizer* tokenizer_;
  EngineOptions options_;
  std::unique_ptr<ModelRows> model_rows_;
  DraftLengths draft_lengths_;
  std::vector<Row> rows_;
  int64_t heard_ = 0;  // sequences in rows whose text somebody hears as it grows
  std::deque<GenerationRequest> waiting_;
};

// Decodes the requests and returns their results in the same order.
std::vector<GenerationResult> generate(Engine& engine, std::vector<GenerationRequest> requests);

}  // namespace mambify
