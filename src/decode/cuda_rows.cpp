#include "decode/cuda_rows.h"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <compare>
#include <map>

#include "core/error.h"
#include "kernels/multi_step/params.h"
#include "kernels/pass_attention/params.h"
#include "kernels/pass_linear/params.h"
#include "kernels/pass_norm/params.h"
#include "kernels/pass_tokens/params.h"

namespace mambify {
namespace {

using kernels::Bf16;
using kernels::DeviceMemory;
using kernels::PassDraw;
using kernels::PassSequence;
using kernels::PassToken;
using kernels::PinnedMemory;
using kernels::Prefetch;

// Bytes of the weights behind a small kernel that are brought to the L2 cache while it runs.
constexpr int64_t kMostPrefetched = 16 << 20;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
// Sizes that graphs are recorded for: every one up to 8, then multiples of 8.
int64_t bucket_of(int64_t count) { return count <= 8 ? count : round_up(count, 8); }
int64_t power_of_two(int64_t count) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(count)));
}

// Whether the device draws so, or the filters take the host.
bool is_unfiltered(const SamplingOptions& sampling) {
  return sampling.temperature == 0 ||
         (sampling.top_k == 0 && sampling.top_p == 1 && sampling.min_p == 0);
}

// What one pass reads of one input.
struct Piece {
  int64_t row;
  std::span<const TokenId> tokens;
  int64_t drafts;        // of the last tokens
  int64_t scored;        // of the last tokens
  int64_t first_result;  // number of its first scored token among those of all inputs
};

// A pass is recorded once for each.
struct Bucket {
  int64_t tokens, sequences, scored;
  int64_t longest;  // most tokens of one sequence
  int64_t splits;   // of the attention's cache
  auto operator<=>(const Bucket&) const = default;
};

// One layer's memory. The rings hold what projections computed of each row's last tokens
// (kernels/multi_step/params.h).
struct LayerMemory {
  DeviceMemory keys, values;
  DeviceMemory in, selection, dt;
  DeviceMemory state;
};

template <typename T>
class CudaRows : public ModelRows {
 public:
  CudaRows(const CudaWeights& weights, int64_t rows, int64_t context, int64_t max_drafts)
      : weights_(weights),
        config_(weights.config()),
        counts_(rows, max_drafts),
        capacity_(context),
        piece_(rows <= 4 ? 64 : 16),
        ring_slots_(kWindow + max_drafts + piece_),
        most_tokens_(bucket_of(std::max<int64_t>(64, rows * (max_drafts + 1)))),
        most_sequences_(bucket_of(rows)),
        plan_host_(plan_bytes()),
        ids_(most_tokens_ * static_cast<int64_t>(sizeof(int32_t))) {
    kernels::use_cuda_device(weights.device());
    stream_ = kernels::create_cuda_stream();
    allocate();
  }
  ~CudaRows() override { kernels::destroy_cuda_stream(stream_); }
  CudaRows(const CudaRows&) = delete;
  CudaRows& operator=(const CudaRows&) = delete;

  int64_t length(int64_t row) const override { return counts_.lengths[row]; }

  NextTokenScores read(std::span<const RowInput> inputs) override {
    const int64_t results = results_of(inputs);
    at::Tensor scores = at::empty({results, config_.vocab_size}, at::kFloat);
    run(inputs, {}, [&](const std::vector<Piece>& pieces) {
      copy_scores(pieces, scores.mutable_data_ptr<float>(), [](int64_t) { return true; });
    });
    return NextTokenScores(std::move(scores));
  }

  std::vector<TokenId> read_and_draw(std::span<const RowInput> inputs,
                                     std::span<const TokenDraw> draws) override {
    std::vector<TokenId> drawn(draws.size());
    const bool filtered = std::ranges::any_of(
        draws, [](const TokenDraw& draw) { return !is_unfiltered(draw.sampling); });
    at::Tensor scores;
    if (filtered) scores = at::empty({results_of(inputs), config_.vocab_size}, at::kFloat);
    run(inputs, draws, [&](const std::vector<Piece>& pieces) {
      const int32_t* id = ids_.as<int32_t>();
      for (const Piece& piece : pieces) {
        for (int64_t i = 0; i < piece.scored; ++i) drawn[piece.first_result + i] = *id++;
      }
      if (!filtered) return;
      copy_scores(pieces, scores.mutable_data_ptr<float>(),
                  [&](int64_t result) { return !is_unfiltered(draws[result].sampling); });
    });
    at::parallel_for(0, static_cast<int64_t>(draws.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const TokenDraw& draw = draws[i];
        if (is_unfiltered(draw.sampling)) continue;
        const std::span<const float> row{scores.const_data_ptr<float>() + i * config_.vocab_size,
                                         static_cast<size_t>(config_.vocab_size)};
        drawn[i] = sample_token(row, draw.sampling, draw.sequence, draw.position);
      }
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
  // A row without tokens starts from zeros, whatever its memory holds.
  void reset(int64_t row) override { counts_.clear(row); }

  const ModelState& materialise() override {
    replay_pending();
    const auto dtype = weights_.is_bf16() ? at::kBFloat16 : at::kFloat;
    host_state_.emplace(config_, counts_.rows(), capacity_, at::TensorOptions(dtype),
                        counts_.max_drafts);
    static_cast<RowCounts&>(*host_state_) = counts_;
    for (int64_t i = 0; i < config_.n_layer(); ++i) read_layer(i, host_state_->layers[i]);
    return *host_state_;
  }

 private:
  static constexpr int64_t kWindow = 3;  // inputs before a token that its convolution sees

  const T* data(const DeviceMemory& memory) const { return memory.as<T>(); }

  // --- Memory

  int64_t plan_bytes() const {
    return most_tokens_ * static_cast<int64_t>(sizeof(PassToken) + sizeof(PassDraw)) +
           most_sequences_ * static_cast<int64_t>(sizeof(PassSequence));
  }
  // The parts of the plan in host or device memory: sequences, tokens, draws.
  template <typename Memory>
  PassDraw* draws_in(const Memory& plan) const {
    return plan.template as<PassDraw>();
  }
  template <typename Memory>
  PassToken* tokens_in(const Memory& plan) const {
    return reinterpret_cast<PassToken*>(draws_in(plan) + most_tokens_);
  }
  template <typename Memory>
  PassSequence* sequences_in(const Memory& plan) const {
    return reinterpret_cast<PassSequence*>(tokens_in(plan) + most_tokens_);
  }

  static DeviceMemory elements(int64_t count) {
    return DeviceMemory(count * static_cast<int64_t>(sizeof(T)));
  }

  void allocate() {
    const int64_t rows = counts_.rows();
    // One place more, for tokens that fill a bucket.
    const auto ring = [&](int64_t width) {
      return elements((rows * ring_slots_ + 1) * kernels::padded(width));
    };
    plan_ = DeviceMemory(plan_host_.bytes());
    int64_t widest = 0;  // of what is between two kernels
    const bool has_attention = config_.count(MixerKind::attention) > 0;
    for (const CudaBlock& block : weights_.blocks()) {
      LayerMemory& layer = layers_.emplace_back();
      const int64_t in_width = kernels::padded(block.mixer.in.outputs);
      switch (block.kind) {
        case MixerKind::attention: {
          const AttentionConfig& sizes = config_.attention;
          layer.keys = elements(rows * sizes.n_kv_heads * capacity_ * sizes.head_dim);
          layer.values = elements(rows * sizes.n_kv_heads * capacity_ * sizes.head_dim);
          widest = std::max(widest, in_width);
          break;
        }
        case MixerKind::mamba1: {
          const Mamba1Config& sizes = config_.mamba1;
          layer.in = ring(in_width);
          if (sizes.selects_from_x) layer.selection = ring(block.mixer.selection.outputs);
          layer.dt = ring(sizes.d_inner);
          layer.state = DeviceMemory(rows * sizes.d_inner * sizes.d_state * 4);
          widest = std::max(widest, sizes.d_inner);
          break;
        }
        case MixerKind::mamba2: {
          const Mamba2Config& sizes = config_.mamba2;
          layer.in = ring(in_width);
          layer.state = DeviceMemory(rows * sizes.d_inner() * sizes.d_state * 4);
          widest = std::max(widest, sizes.d_inner());
          break;
        }
      }
      if (block.post_norm.bytes() > 0) widest = std::max(widest, block.gate_up.begins[1]);
    }
    residual_ = elements(most_tokens_ * config_.d_model);
    normed_ = elements(most_tokens_ * config_.d_model);
    scales_ = DeviceMemory(most_tokens_ * 4);
    wide_ = elements(most_tokens_ * kernels::padded(widest));
    mixed_ = elements(most_tokens_ * kernels::padded(widest));
    score_stride_ = kernels::padded(config_.vocab_size);
    scores_ = elements(most_tokens_ * score_stride_);
    draw_scratch_ = DeviceMemory(kernels::pass_draw_scratch_bytes(most_tokens_));
    if (has_attention) {
      const AttentionConfig& sizes = config_.attention;
      parts_ = DeviceMemory(kernels::pass_attention_scratch_bytes(most_tokens_, sizes.n_heads,
                                                                  sizes.head_dim, most_splits()));
      counters_ = DeviceMemory(
          4 * kernels::pass_attention_counters(most_sequences_, sizes.n_kv_heads, most_splits()));
    }
    if (has_attention || (config_.count(MixerKind::mamba2) > 0 && config_.mamba2.rotary)) {
      const RotaryTable table = rotary_table(config_.attention.rope, config_.attention.head_dim,
                                             at::arange(capacity_, at::kLong));
      cos_ = DeviceMemory(static_cast<int64_t>(table.cos.nbytes()));
      sin_ = DeviceMemory(static_cast<int64_t>(table.sin.nbytes()));
      cos_.write(table.cos.const_data_ptr(), cos_.bytes());
      sin_.write(table.sin.const_data_ptr(), sin_.bytes());
    }
  }

  int64_t splits_of(int64_t positions) const {
    return (positions + kernels::kAttentionSplit - 1) / kernels::kAttentionSplit;
  }
  int64_t most_splits() const { return power_of_two(splits_of(capacity_)); }

  // --- Passes

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
      int64_t tokens = 0;
      for (size_t i = 0; i < inputs.size(); ++i) {
        const RowInput& input = inputs[i];
        const auto left = static_cast<int64_t>(input.tokens.size() - read[i]);
        if (left == 0) continue;
        // The last piece is the whole one, so that it holds what is a draft or scored.
        const int64_t count = (left - 1) % piece_ + 1;
        if (tokens + count > most_tokens_) break;
        const bool is_last = count == left;
        pieces.push_back({.row = input.row,
                          .tokens = std::span(input.tokens).subspan(read[i], count),
                          .drafts = is_last ? input.drafts : 0,
                          .scored = is_last ? input.scored : 0,
                          .first_result = first_results[i]});
        read[i] += count;
        tokens += count;
      }
      if (pieces.empty()) return;
      run_pass(pieces, draws);
      done(pieces);
    }
  }

  void check(const RowInput& input) const {
    const auto tokens = static_cast<int64_t>(input.tokens.size());
    const int64_t last = std::min(tokens, piece_);
    TORCH_CHECK(input.drafts <= last && input.scored <= last, "a row reads ", tokens, " tokens, ",
                input.drafts, " of them drafts and ", input.scored, " scored");
    TORCH_CHECK(counts_.lengths[input.row] + tokens <= capacity_, "row ", input.row, " holds ",
                counts_.lengths[input.row], " tokens and would read ", tokens, " more, of ",
                capacity_);
  }

  void run_pass(const std::vector<Piece>& pieces, std::span<const TokenDraw> draws) {
    const Bucket bucket = plan(pieces, draws);
    const auto [found, is_new] = graphs_.try_emplace(bucket);
    if (is_new) {
      found->second.begin(stream_);
      record(bucket);
      found->second.end(stream_);
    }
    found->second.launch(stream_);
    kernels::synchronise(stream_);
    for (const Piece& piece : pieces) {
      const auto tokens = static_cast<int64_t>(piece.tokens.size());
      counts_.advance(piece.row, tokens, counts_.commit_of(piece.row, tokens, piece.drafts));
    }
  }

  PassSequence sequence_of(int64_t row, int64_t first, int64_t tokens, int64_t drafts) const {
    return {.row = static_cast<int32_t>(row),
            .first = static_cast<int32_t>(first),
            .tokens = static_cast<int32_t>(tokens),
            .base = static_cast<int32_t>(counts_.lengths[row] - counts_.pending[row]),
            .pending = static_cast<int32_t>(counts_.pending[row]),
            .commit = static_cast<int32_t>(counts_.commit_of(row, tokens, drafts))};
  }

  // Writes the plan, and says which graph runs it.
  Bucket plan(const std::vector<Piece>& pieces, std::span<const TokenDraw> draws) {
    PassSequence* sequences = sequences_in(plan_host_);
    PassToken* tokens = tokens_in(plan_host_);
    PassDraw* drawn = draws_in(plan_host_);
    int64_t n = 0, scored = 0, longest = 1, positions = 1;
    for (size_t s = 0; s < pieces.size(); ++s) {
      const Piece& piece = pieces[s];
      const auto count = static_cast<int64_t>(piece.tokens.size());
      const int64_t begin = counts_.lengths[piece.row];
      sequences[s] = sequence_of(piece.row, n, count, piece.drafts);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t behind = i - (count - piece.scored);  // its number among the scored
        if (behind >= 0 && !draws.empty()) {
          const TokenDraw& draw = draws[piece.first_result + behind];
          const double temperature = is_unfiltered(draw.sampling) ? draw.sampling.temperature : 0;
          drawn[scored] = {.temperature = temperature,
                           .seed = draw.sampling.seed,
                           .sequence = draw.sequence,
                           .position = draw.position};
        } else if (behind >= 0) {
          drawn[scored] = {};
        }
        tokens[n++] = {
            .id = piece.tokens[i],
            .position = static_cast<int32_t>(begin + i),
            .place = static_cast<int32_t>(piece.row * ring_slots_ + (begin + i) % ring_slots_),
            .scored = behind >= 0 ? static_cast<int32_t>(scored++) : -1};
      }
      longest = std::max(longest, count);
      positions = std::max(positions, begin + count);
    }
    const Bucket bucket{.tokens = bucket_of(n),
                        .sequences = bucket_of(static_cast<int64_t>(pieces.size())),
                        .scored = bucket_of(scored),
                        .longest = power_of_two(longest),
                        .splits = power_of_two(splits_of(positions))};
    const auto spare = static_cast<int32_t>(counts_.rows() * ring_slots_);
    for (; n < bucket.tokens; ++n)
      tokens[n] = {.id = 0, .position = 0, .place = spare, .scored = -1};
    for (; scored < bucket.scored; ++scored) drawn[scored] = {};
    for (auto s = static_cast<int64_t>(pieces.size()); s < bucket.sequences; ++s) sequences[s] = {};
    return bucket;
  }

  // Launches the kernels of a pass.
  void record(const Bucket& bucket) {
    kernels::copy_to_device(plan_.as<void>(), plan_host_, plan_host_.bytes(), stream_);
    const CudaMatrix& embedding = weights_.embedding();
    kernels::pass_embed_cuda<T>({.rows = bucket.tokens,
                                 .width = config_.d_model,
                                 .tokens = tokens_in(plan_),
                                 .embedding = data(embedding.memory),
                                 .stride = kernels::padded(embedding.inputs),
                                 .y = residual_.as<T>()},
                                stream_);
    for (int64_t i = 0; i < config_.n_layer(); ++i) record_block(bucket, i);
    if (bucket.scored == 0) return;
    kernels::pass_norm_cuda<T>({.rows = bucket.tokens,
                                .width = config_.d_model,
                                .eps = static_cast<float>(config_.norm_eps),
                                .x = residual_.as<T>(),
                                .weight = data(weights_.final_norm()),
                                .tokens = tokens_in(plan_),
                                .only_scored = true,
                                .y = normed_.as<T>(),
                                .scales = scales_.as<float>()},
                               weights_of(weights_.output()), stream_);
    linear(weights_.output(), {.rows = bucket.scored,
                               .outputs = config_.vocab_size,
                               .scales = scales_.as<float>(),
                               .x = normed_.as<T>(),
                               .x_stride = config_.d_model,
                               .y = scores_.as<T>(),
                               .y_stride = score_stride_});
    kernels::pass_draw_cuda<T>({.rows = bucket.scored,
                                .vocabulary = config_.vocab_size,
                                .scores = scores_.as<T>(),
                                .stride = score_stride_,
                                .draws = draws_in(plan_),
                                .scratch = draw_scratch_.as<void>(),
                                .ids = ids_.as<int32_t>()},
                               stream_);
  }

  static Prefetch weights_of(const CudaMatrix& matrix) {
    return {.data = matrix.memory.as<void>(),
            .bytes = std::min(matrix.memory.bytes(), kMostPrefetched)};
  }

  // A product with a matrix; p: all but the weight and its sizes, `outputs` where it is not all.
  void linear(const CudaMatrix& matrix, kernels::PassLinearParams<T> p) {
    p.inputs = matrix.inputs;
    if (p.outputs == 0) p.outputs = matrix.outputs;
    p.weight = data(matrix.memory);
    p.tokens = tokens_in(plan_);
    kernels::pass_linear_cuda<T>(p, stream_);
  }

  // The same of the norm of the residual stream.
  void normed_linear(const Bucket& bucket, const DeviceMemory& norm, const CudaMatrix& matrix,
                     kernels::PassLinearParams<T> p) {
    p.rows = bucket.tokens;
    p.x_stride = config_.d_model;
    const auto eps = static_cast<float>(config_.norm_eps);
    if (kernels::pass_linear_takes_norm<T>(bucket.tokens, config_.d_model)) {
      p.x = residual_.as<T>();
      p.norm = data(norm);
      p.norm_eps = eps;
    } else {
      kernels::pass_norm_cuda<T>({.rows = bucket.tokens,
                                  .width = config_.d_model,
                                  .eps = eps,
                                  .x = residual_.as<T>(),
                                  .weight = data(norm),
                                  .y = normed_.as<T>(),
                                  .scales = scales_.as<float>()},
                                 weights_of(matrix), stream_);
      p.x = normed_.as<T>();
      p.scales = scales_.as<float>();
    }
    linear(matrix, p);
  }

  // Adds a product to the residual stream.
  void add_to_residual(const Bucket& bucket, const CudaMatrix& matrix, const DeviceMemory& x,
                       int64_t x_stride, const T* bias = nullptr) {
    linear(matrix, {.rows = bucket.tokens,
                    .x = x.as<T>(),
                    .x_stride = x_stride,
                    .bias = bias,
                    .residual = residual_.as<T>(),
                    .y = residual_.as<T>(),
                    .y_stride = config_.d_model});
  }

  void record_block(const Bucket& bucket, int64_t i) {
    const CudaBlock& block = weights_.blocks()[i];
    switch (block.kind) {
      case MixerKind::attention:
        record_attention(bucket, block, layers_[i]);
        break;
      case MixerKind::mamba1:
        record_mamba1(bucket, block, layers_[i]);
        break;
      case MixerKind::mamba2:
        record_mamba2(bucket, block, layers_[i]);
        break;
    }
    if (block.post_norm.bytes() == 0) return;
    const int64_t width = block.gate_up.begins[1];  // of a gate, padded
    normed_linear(bucket, block.post_norm, block.gate_up,
                  {.outputs = width, .gated = true, .y = wide_.as<T>(), .y_stride = width});
    add_to_residual(bucket, block.down, wide_, width);
  }

  void record_attention(const Bucket& bucket, const CudaBlock& block, const LayerMemory& layer) {
    const AttentionConfig& sizes = config_.attention;
    normed_linear(bucket, block.input_norm, block.mixer.in,
                  {.bias = data(block.mixer.in_bias),
                   .y = wide_.as<T>(),
                   .y_stride = block.mixer.in.outputs});
    kernels::pass_attention_cuda<T>(
        {.sequences = sequences_in(plan_),
         .n_sequences = bucket.sequences,
         .max_tokens = bucket.longest,
         .splits = bucket.splits,
         .heads = sizes.n_heads,
         .kv_heads = sizes.n_kv_heads,
         .head_dim = sizes.head_dim,
         .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(sizes.head_dim))),
         .qkv = wide_.as<T>(),
         .cos = cos_.as<float>(),
         .sin = sin_.as<float>(),
         .keys = layer.keys.as<T>(),
         .values = layer.values.as<T>(),
         .capacity = capacity_,
         .parts = parts_.as<float>(),
         .counters = counters_.as<int32_t>(),
         .y = mixed_.as<T>()},
        weights_of(block.mixer.out), stream_);
    add_to_residual(bucket, block.mixer.out, mixed_, sizes.n_heads * sizes.head_dim,
                    data(block.mixer.out_bias));
  }

  kernels::Mamba1StepParams<T> mamba1_step(const CudaBlock& block, const LayerMemory& layer,
                                           int64_t sequences) const {
    const Mamba1Config& sizes = config_.mamba1;
    const CudaMixer& mixer = block.mixer;
    const int64_t in_stride = kernels::padded(mixer.in.outputs);
    // dt, B and C come behind x and z, or are projections of their own.
    const bool apart = sizes.selects_from_x;
    const T* selection = apart ? layer.selection.as<T>() : layer.in.as<T>();
    const int64_t stride = apart ? kernels::padded(mixer.selection.outputs) : in_stride;
    const std::vector<int64_t>& begins = apart ? mixer.selection.begins : mixer.in.begins;
    const size_t low = apart ? 0 : 2;
    return {.sequences = sequences_in(plan_),
            .n_sequences = sequences,
            .ring_slots = ring_slots_,
            .d_inner = sizes.d_inner,
            .d_xb = sizes.d_xb,
            .d_state = sizes.d_state,
            .b_groups = sizes.b_groups,
            .c_groups = sizes.c_groups,
            .d_conv = sizes.d_conv,
            .x = layer.in.as<T>(),
            .x_stride = in_stride,
            .z = layer.in.as<T>() + mixer.in.begins[1],
            .z_stride = in_stride,
            .dt = layer.dt.as<T>(),
            .dt_stride = kernels::padded(sizes.d_inner),
            .B = selection + begins[low + 1],
            .b_stride = stride,
            .C = selection + begins[low + 2],
            .c_stride = stride,
            .conv_weight = data(mixer.conv_weight),
            .conv_bias = data(mixer.conv_bias),
            .dt_bias = mixer.dt_bias.as<float>(),
            .A = mixer.A.as<float>(),
            .D = mixer.D.as<float>(),
            .state = layer.state.as<float>(),
            .y = mixed_.as<T>()};
  }

  // What a layer that selects from its convolved x projects from it.
  void record_selection(const Bucket& bucket, const CudaMixer& mixer, const LayerMemory& layer) {
    const int64_t channels = config_.mamba1.d_inner, taps = config_.mamba1.d_conv;
    const int64_t in_stride = kernels::padded(mixer.in.outputs);
    kernels::PassLinearParams<T> p{.rows = bucket.tokens,
                                   .scatter = true,
                                   .y = layer.selection.as<T>(),
                                   .y_stride = kernels::padded(mixer.selection.outputs)};
    if (taps == 4 && kernels::pass_linear_takes_conv<T>(bucket.tokens, channels)) {
      p.x = layer.in.as<T>();
      p.x_stride = in_stride;
      p.conv_weight = data(mixer.conv_weight);
      p.conv_bias = data(mixer.conv_bias);
      p.ring_slots = ring_slots_;
    } else {
      kernels::conv_step_cuda<T>({.sequences = sequences_in(plan_),
                                  .n_sequences = bucket.sequences,
                                  .ring_slots = ring_slots_,
                                  .channels = channels,
                                  .d_conv = taps,
                                  .x = layer.in.as<T>(),
                                  .x_stride = in_stride,
                                  .weight = data(mixer.conv_weight),
                                  .bias = data(mixer.conv_bias),
                                  .y = mixed_.as<T>()},
                                 weights_of(mixer.selection), stream_);
      p.x = mixed_.as<T>();
      p.x_stride = channels;
    }
    linear(mixer.selection, p);
  }

  void record_mamba1(const Bucket& bucket, const CudaBlock& block, const LayerMemory& layer) {
    const Mamba1Config& sizes = config_.mamba1;
    const CudaMixer& mixer = block.mixer;
    const int64_t in_stride = kernels::padded(mixer.in.outputs);
    normed_linear(bucket, block.input_norm, mixer.in,
                  {.scatter = true, .y = layer.in.as<T>(), .y_stride = in_stride});
    // The low rank of dt, in a ring whichever it comes from.
    const T* low = layer.in.as<T>() + (sizes.selects_from_x ? 0 : mixer.in.begins[2]);
    int64_t low_stride = in_stride;
    if (sizes.selects_from_x) {
      low = layer.selection.as<T>();
      low_stride = kernels::padded(mixer.selection.outputs);
      record_selection(bucket, mixer, layer);
    }
    linear(mixer.dt, {.rows = bucket.tokens,
                      .x = low,
                      .x_stride = low_stride,
                      .gather = true,
                      .scatter = true,
                      .y = layer.dt.as<T>(),
                      .y_stride = kernels::padded(sizes.d_inner)});
    kernels::mamba1_step_cuda(mamba1_step(block, layer, bucket.sequences), weights_of(mixer.out),
                              stream_);
    add_to_residual(bucket, mixer.out, mixed_, sizes.d_inner);
  }

  kernels::Mamba2StepParams<T> mamba2_step(const CudaBlock& block, const LayerMemory& layer,
                                           int64_t sequences) const {
    const Mamba2Config& sizes = config_.mamba2;
    const CudaMixer& mixer = block.mixer;
    return {.sequences = sequences_in(plan_),
            .n_sequences = sequences,
            .ring_slots = ring_slots_,
            .heads = sizes.n_heads,
            .head_dim = sizes.head_dim,
            .d_state = sizes.d_state,
            .x_groups = sizes.x_groups,
            .b_groups = sizes.b_groups,
            .c_groups = sizes.c_groups,
            .d_conv = sizes.d_conv,
            .conv_activation = sizes.conv_activation,
            .dt_min = static_cast<float>(sizes.dt_min),
            .dt_max = static_cast<float>(sizes.dt_max),
            .inputs = layer.in.as<T>() + sizes.d_inner(),
            .input_stride = kernels::padded(mixer.in.outputs),
            .conv_weight = data(mixer.conv_weight),
            .conv_bias = data(mixer.conv_bias),
            .dt_bias = mixer.dt_bias.as<float>(),
            .A = mixer.A.as<float>(),
            .D = mixer.D.as<float>(),
            .cos = sizes.rotary ? cos_.as<float>() : nullptr,
            .sin = sizes.rotary ? sin_.as<float>() : nullptr,
            .state = layer.state.as<float>(),
            .y = mixed_.as<T>()};
  }

  void record_mamba2(const Bucket& bucket, const CudaBlock& block, const LayerMemory& layer) {
    const Mamba2Config& sizes = config_.mamba2;
    const CudaMixer& mixer = block.mixer;
    const int64_t in_stride = kernels::padded(mixer.in.outputs);
    normed_linear(bucket, block.input_norm, mixer.in,
                  {.scatter = true, .y = layer.in.as<T>(), .y_stride = in_stride});
    kernels::mamba2_step_cuda(mamba2_step(block, layer, bucket.sequences), weights_of(mixer.out),
                              stream_);
    if (sizes.gate || sizes.norm) {
      kernels::pass_gated_norm_cuda<T>({.rows = bucket.tokens,
                                        .width = sizes.d_inner(),
                                        .group = sizes.norm_group_size,
                                        .gate = sizes.gate,
                                        .norm = sizes.norm,
                                        .eps = static_cast<float>(sizes.norm_eps),
                                        .y = mixed_.as<T>(),
                                        .z = layer.in.as<T>(),
                                        .z_stride = in_stride,
                                        .tokens = tokens_in(plan_),
                                        .weight = data(mixer.norm)},
                                       Prefetch{}, stream_);
    }
    add_to_residual(bucket, mixer.out, mixed_, sizes.d_inner());
  }

  // --- What comes back

  // Scores of the pieces' scored tokens, those for which wanted(result) holds, to rows of `to`.
  template <typename Wanted>
  void copy_scores(const std::vector<Piece>& pieces, float* to, const Wanted& wanted) {
    int64_t from = 0;
    for (const Piece& piece : pieces) {
      for (int64_t i = 0; i < piece.scored; ++i, ++from) {
        const int64_t result = piece.first_result + i;
        if (!wanted(result)) continue;
        std::vector<T> row(static_cast<size_t>(config_.vocab_size));
        const auto bytes = static_cast<int64_t>(row.size() * sizeof(T));
        scores_.read(row.data(), bytes, from * score_stride_ * static_cast<int64_t>(sizeof(T)));
        std::ranges::transform(row, to + result * config_.vocab_size,
                               [](T x) { return kernels::to_float(x); });
      }
    }
  }

  // A pass over no new token brings recurrent states up to what is committed.
  void replay_pending() {
    PassSequence* sequences = sequences_in(plan_host_);
    int64_t n = 0;
    for (int64_t row = 0; row < counts_.rows(); ++row) {
      TORCH_CHECK(counts_.drafts(row) == 0, "materialise: row ", row, " has drafts");
      if (counts_.pending[row] > 0) sequences[n++] = sequence_of(row, 0, 0, 0);
    }
    if (n == 0) return;
    kernels::copy_to_device(plan_.as<void>(), plan_host_, plan_host_.bytes(), stream_);
    for (int64_t i = 0; i < config_.n_layer(); ++i) {
      const CudaBlock& block = weights_.blocks()[i];
      if (block.kind == MixerKind::mamba1) {
        kernels::mamba1_step_cuda(mamba1_step(block, layers_[i], n), Prefetch{}, stream_);
      } else if (block.kind == MixerKind::mamba2) {
        kernels::mamba2_step_cuda(mamba2_step(block, layers_[i], n), Prefetch{}, stream_);
      }
    }
    kernels::synchronise(stream_);
    for (int64_t row = 0; row < counts_.rows(); ++row) {
      counts_.advance(row, 0, counts_.pending[row]);
    }
  }

  void read_layer(int64_t i, MixerState& to) const {
    const LayerMemory& layer = layers_[i];
    const auto copy = [](const DeviceMemory& from, at::Tensor& tensor) {
      from.read(tensor.mutable_data_ptr(), static_cast<int64_t>(tensor.nbytes()));
    };
    switch (config_.layers[i]) {
      case MixerKind::attention:
        copy(layer.keys, to.keys);
        copy(layer.values, to.values);
        return;
      case MixerKind::mamba1: {
        const Mamba1Config& sizes = config_.mamba1;
        copy(layer.state, to.state);
        // Channel d of d_inner sees this one of d_xb.
        const auto channel = [&](int64_t d) {
          const int64_t repeats = sizes.d_inner / sizes.d_xb;
          return repeats == 1 ? d : d / sizes.d_state / repeats * sizes.d_state + d % sizes.d_state;
        };
        return read_window(i, layer, sizes.d_conv - 1, 0, channel, to.window);
      }
      case MixerKind::mamba2: {
        const Mamba2Config& sizes = config_.mamba2;
        copy(layer.state, to.state);
        const auto channel = [](int64_t c) { return c; };
        return read_window(i, layer, sizes.d_conv - 1, sizes.d_inner(), channel, to.window);
      }
    }
  }

  // The last inputs of each row's convolution, [rows, channels, width]; zeros before the first.
  template <typename Channel>
  void read_window(int64_t i, const LayerMemory& layer, int64_t width, int64_t begin,
                   const Channel& channel, at::Tensor& window) const {
    const int64_t stride = kernels::padded(weights_.blocks()[i].mixer.in.outputs);
    std::vector<T> ring(static_cast<size_t>(counts_.rows() * ring_slots_ * stride));
    layer.in.read(ring.data(), static_cast<int64_t>(ring.size() * sizeof(T)));
    float* to = window.mutable_data_ptr<float>();
    for (int64_t row = 0; row < counts_.rows(); ++row) {
      for (int64_t c = 0; c < window.size(1); ++c) {
        for (int64_t k = 0; k < width; ++k) {
          const int64_t position = counts_.lengths[row] - width + k;
          const int64_t place = row * ring_slots_ + position % ring_slots_;
          *to++ =
              position < 0 ? 0.0f : kernels::to_float(ring[place * stride + begin + channel(c)]);
        }
      }
    }
  }

  const CudaWeights& weights_;
  const ModelConfig& config_;
  RowCounts counts_;
  const int64_t capacity_;
  const int64_t piece_;  // most tokens of one sequence in a pass
  const int64_t ring_slots_;
  const int64_t most_tokens_, most_sequences_;  // of a pass
  PinnedMemory plan_host_;
  PinnedMemory ids_;
  kernels::CudaStream stream_ = nullptr;
  std::vector<LayerMemory> layers_;
  DeviceMemory plan_;
  DeviceMemory residual_, normed_;  // [most_tokens_, d_model]
  DeviceMemory scales_;             // [most_tokens_], of normed_
  DeviceMemory wide_, mixed_;       // between kernels of a block
  DeviceMemory scores_;             // [most_tokens_, score_stride_]
  int64_t score_stride_ = 0;
  DeviceMemory draw_scratch_, parts_, counters_, cos_, sin_;
  std::map<Bucket, kernels::CudaGraph> graphs_;
  std::optional<ModelState> host_state_;
};

}  // namespace

std::unique_ptr<ModelRows> make_cuda_rows(const CudaWeights& weights, int64_t rows, int64_t context,
                                          int64_t max_drafts) {
  if (weights.is_bf16()) {
    return std::make_unique<CudaRows<Bf16>>(weights, rows, context, max_drafts);
  }
  return std::make_unique<CudaRows<float>>(weights, rows, context, max_drafts);
}

}  // namespace mambify
