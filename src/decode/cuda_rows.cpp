#include "decode/cuda_rows.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "core/error.h"
#include "decode/cuda_pass.h"
#include "kernels/parallel.h"

namespace mambify {
namespace {

using kernels::PinnedMemory;

// A stream of a device, which is this thread's from here on.
class Stream {
 public:
  explicit Stream(int device) {
    kernels::use_cuda_device(device);
    stream_ = kernels::create_cuda_stream();
  }
  ~Stream() { kernels::destroy_cuda_stream(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  kernels::CudaStream get() const { return stream_; }

 private:
  kernels::CudaStream stream_ = nullptr;
};

template <typename T>
class CudaRows : public ModelRows {
 public:
  CudaRows(const CudaWeights& weights, int64_t rows, int64_t context, int64_t max_drafts,
           std::vector<TokenId> tokens)
      : weights_(weights),
        config_(weights.config()),
        tokens_(std::move(tokens)),
        outputs_(weights.output().outputs),
        counts_(rows, max_drafts),
        capacity_(context),
        most_scored_(bucket_of(std::max<int64_t>(64, rows * (max_drafts + 1)))),
        most_tokens_(std::max(most_scored_, kIsBf16 ? kMostTokens : 64)),
        piece_(piece_of(weights.config(), rows)),
        ring_slots_(kWindow + max_drafts + piece_),
        most_sequences_(bucket_of(rows)),
        stream_(weights.device()),
        plan_(most_tokens_, most_sequences_, ring_slots_),
        ids_(most_tokens_ * static_cast<int64_t>(sizeof(int32_t))),
        pass_(weights,
              {.rows = rows,
               .capacity = context,
               .ring_slots = ring_slots_,
               .tokens = most_tokens_,
               .sequences = most_sequences_,
               .scored = most_scored_},
              plan_, tokens_, ids_, stream_.get()) {}
  CudaRows(const CudaRows&) = delete;
  CudaRows& operator=(const CudaRows&) = delete;

  int64_t prefill_chunk() const override { return kMostTokens; }
  int64_t length(int64_t row) const override { return counts_.lengths[row]; }

  NextTokenScores read(std::span<const RowInput> inputs) override {
    const int64_t results = results_of(inputs);
    at::Tensor scores = at::empty({results, outputs_}, at::kFloat);
    run(inputs, {}, [&](const std::vector<Piece>& pieces) {
      copy_scores(pieces, scores.mutable_data_ptr<float>(), [](int64_t) { return true; });
    });
    return NextTokenScores(std::move(scores), tokens_);
  }

  std::vector<TokenId> read_and_draw(std::span<const RowInput> inputs,
                                     std::span<const TokenDraw> draws) override {
    std::vector<TokenId> drawn(draws.size());
    const bool filtered = std::ranges::any_of(
        draws, [](const TokenDraw& draw) { return !draws_on_device(draw.sampling); });
    at::Tensor scores;
    if (filtered) scores = at::empty({results_of(inputs), outputs_}, at::kFloat);
    run(inputs, draws, [&](const std::vector<Piece>& pieces) {
      const int32_t* id = ids_.as<int32_t>();
      for (const Piece& piece : pieces) {
        for (int64_t i = 0; i < piece.scored; ++i) drawn[piece.first_result + i] = *id++;
      }
      if (!filtered) return;
      copy_scores(pieces, scores.mutable_data_ptr<float>(),
                  [&](int64_t result) { return !draws_on_device(draws[result].sampling); });
    });
    kernels::parallel_tasks(static_cast<int64_t>(draws.size()), scores.numel(), [&](int64_t i) {
      const TokenDraw& draw = draws[i];
      if (draws_on_device(draw.sampling)) return;
      const std::span<const float> row{scores.const_data_ptr<float>() + i * outputs_,
                                       static_cast<size_t>(outputs_)};
      drawn[i] = sample_token(row, draw.sampling, draw.sequence, draw.position, tokens_);
    });
    if (std::ranges::find(drawn, -1) != drawn.end()) {
      throw Error("the model's logits hold no number to choose a token by");
    }
    return drawn;
  }

  void commit(int64_t row, int64_t count) override { counts_.commit(row, count); }
  bool take_back(int64_t row, int64_t count) override {
    if (counts_.take_back(row, count)) return true;
    counts_.clear(row);
    return false;
  }
  int64_t bytes() const override { return pass_.bytes(); }
  void pretend(int64_t row, int64_t tokens) override {
    TORCH_CHECK(tokens <= capacity_, "row ", row, " would hold ", tokens, " tokens of ", capacity_);
    if (!is_random_) pass_.fill_randomly();
    is_random_ = true;
    counts_.clear(row);
    counts_.advance(row, tokens, tokens);
  }
  // A row without tokens starts from zeros, whatever its memory holds.
  void reset(int64_t row) override { counts_.clear(row); }

  const ModelState& materialise() override {
    replay_pending();
    const auto dtype = weights_.is_bf16() ? at::kBFloat16 : at::kFloat;
    host_state_.emplace(config_, counts_.rows(), capacity_, at::TensorOptions(dtype),
                        counts_.max_drafts);
    static_cast<RowCounts&>(*host_state_) = counts_;
    pass_.read_state(counts_, host_state_->layers);
    return *host_state_;
  }

 private:
  static constexpr int64_t kWindow = 3;  // inputs before a token that its convolution sees
  static constexpr bool kIsBf16 = sizeof(T) == 2;
  // Of a pass that reads prompts: the products' time is that of their arithmetic.
  static constexpr int64_t kMostTokens = 1024;

  // Most tokens of one sequence in a pass. Recurrent layers keep the inputs of so many for every
  // row, which are no more together with many rows than with one.
  static int64_t piece_of(const ModelConfig& config, int64_t rows) {
    if (!kIsBf16) return rows <= 4 ? 64 : 16;
    if (config.count(MixerKind::attention) == config.n_layer()) return kMostTokens;
    return std::max<int64_t>(kMostTokens / rows, 16);
  }

  static int64_t results_of(std::span<const RowInput> inputs) {
    int64_t results = 0;
    for (const RowInput& input : inputs) results += input.scored;
    return results;
  }

  // Reads the inputs in as many passes as they take; after each, done(its pieces) finds the scores
  // and ids of their scored tokens, one piece after the other.
  template <typename Done>
  void run(std::span<const RowInput> inputs, std::span<const TokenDraw> draws, const Done& done) {
    std::vector<size_t> read(inputs.size(), 0);
    std::vector<int64_t> first_results;
    int64_t results = 0;
    for (const RowInput& input : inputs) {
      first_results.push_back(results);
      results += input.scored;
      check(input);
    }
    while (true) {
      std::vector<Piece> pieces;
      int64_t tokens = 0, scored = 0;
      for (size_t i = 0; i < inputs.size(); ++i) {
        const RowInput& input = inputs[i];
        const auto left = static_cast<int64_t>(input.tokens.size() - read[i]);
        if (left == 0) continue;
        // The last piece is the whole one, so that it holds what is a draft or scored.
        const int64_t count = (left - 1) % piece_ + 1;
        const bool is_last = count == left;
        const int64_t count_scored = is_last ? input.scored : 0;
        if (tokens + count > most_tokens_ || scored + count_scored > most_scored_) break;
        pieces.push_back({.row = input.row,
                          .tokens = std::span(input.tokens).subspan(read[i], count),
                          .drafts = is_last ? input.drafts : 0,
                          .scored = count_scored,
                          .first_result = first_results[i]});
        read[i] += count;
        tokens += count;
        scored += count_scored;
      }
      if (pieces.empty()) return;
      run_pass(pieces, draws);
      done(pieces);
    }
  }

  void check(const RowInput& input) const {
    const auto tokens = static_cast<int64_t>(input.tokens.size());
    const int64_t last = std::min({tokens, piece_, most_scored_});
    TORCH_CHECK(input.drafts <= last && input.scored <= last, "a row reads ", tokens, " tokens, ",
                input.drafts, " of them drafts and ", input.scored, " scored");
    TORCH_CHECK(counts_.lengths[input.row] + tokens <= capacity_, "row ", input.row, " holds ",
                counts_.lengths[input.row], " tokens and would read ", tokens, " more, of ",
                capacity_);
  }

  void run_pass(const std::vector<Piece>& pieces, std::span<const TokenDraw> draws) {
    const Bucket bucket = plan_.write(pieces, draws, counts_);
    const auto [found, is_new] = graphs_.try_emplace(bucket);
    if (is_new) {
      found->second.begin(stream_.get());
      pass_.record(bucket);
      found->second.end(stream_.get());
    }
    found->second.launch(stream_.get());
    kernels::synchronise(stream_.get());
    for (const Piece& piece : pieces) {
      const auto tokens = static_cast<int64_t>(piece.tokens.size());
      counts_.advance(piece.row, tokens, counts_.commit_of(piece.row, tokens, piece.drafts));
    }
  }

  // Scores of the pieces' scored tokens, those for which wanted(result) holds, to rows of `to`.
  template <typename Wanted>
  void copy_scores(const std::vector<Piece>& pieces, float* to, const Wanted& wanted) {
    int64_t from = 0;
    for (const Piece& piece : pieces) {
      for (int64_t i = 0; i < piece.scored; ++i, ++from) {
        const int64_t result = piece.first_result + i;
        if (!wanted(result)) continue;
        pass_.read_scores(from, to + result * outputs_);
      }
    }
  }

  // A pass over no new token brings recurrent states up to what is committed.
  void replay_pending() {
    const int64_t sequences = plan_.write_replay(counts_);
    if (sequences == 0) return;
    pass_.record_replay(sequences);
    kernels::synchronise(stream_.get());
    for (int64_t row = 0; row < counts_.rows(); ++row) {
      counts_.advance(row, 0, counts_.pending[row]);
    }
  }

  const CudaWeights& weights_;
  const ModelConfig& config_;
  const std::vector<TokenId> tokens_;  // of the output matrix's rows; empty: all
  const int64_t outputs_;              // how many rows that are
  RowCounts counts_;
  const int64_t capacity_;
  const int64_t most_scored_, most_tokens_;  // of a pass
  const int64_t piece_;                      // most tokens of one sequence in a pass
  const int64_t ring_slots_;
  const int64_t most_sequences_;  // of a pass
  const Stream stream_;
  CudaPlan plan_;
  PinnedMemory ids_;
  CudaPass<T> pass_;
  std::map<Bucket, kernels::CudaGraph> graphs_;
  std::optional<ModelState> host_state_;
  bool is_random_ = false;  // what pretend() fills
};

}  // namespace

std::unique_ptr<ModelRows> make_cuda_rows(const CudaWeights& weights, int64_t rows, int64_t context,
                                          int64_t max_drafts, std::vector<TokenId> tokens) {
  if (weights.is_bf16()) {
    return std::make_unique<CudaRows<kernels::Bf16>>(weights, rows, context, max_drafts,
                                                     std::move(tokens));
  }
  return std::make_unique<CudaRows<float>>(weights, rows, context, max_drafts, std::move(tokens));
}

}  // namespace mambify
