#include "decode/cuda_plan.h"

#include <algorithm>
#include <bit>

#include "kernels/pass_attention/params.h"

namespace mambify {

using kernels::PassDraw;
using kernels::PassSequence;
using kernels::PassToken;

namespace {

int64_t power_of_two(int64_t count) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(count)));
}

int64_t bytes_of(int64_t tokens, int64_t sequences) {
  return tokens * static_cast<int64_t>(sizeof(PassToken) + sizeof(PassDraw)) +
         sequences * static_cast<int64_t>(sizeof(PassSequence));
}

PassSequence sequence_of(const RowCounts& counts, int64_t row, int64_t first, int64_t tokens,
                         int64_t drafts) {
  return {.row = static_cast<int32_t>(row),
          .first = static_cast<int32_t>(first),
          .tokens = static_cast<int32_t>(tokens),
          .base = static_cast<int32_t>(counts.lengths[row] - counts.pending[row]),
          .pending = static_cast<int32_t>(counts.pending[row]),
          .commit = static_cast<int32_t>(counts.commit_of(row, tokens, drafts))};
}

}  // namespace

int64_t bucket_of(int64_t count) {
  const int64_t step = count <= 8 ? 1 : count <= 64 ? 8 : 64;
  return (count + step - 1) / step * step;
}

int64_t cache_splits_of(int64_t positions) {
  return power_of_two((positions + kernels::kAttentionSplit - 1) / kernels::kAttentionSplit);
}

bool draws_on_device(const SamplingOptions& sampling) {
  return sampling.temperature == 0 ||
         (sampling.top_k == 0 && sampling.top_p == 1 && sampling.min_p == 0);
}

CudaPlan::CudaPlan(int64_t most_tokens, int64_t most_sequences, int64_t ring_slots)
    : most_tokens_(most_tokens),
      ring_slots_(ring_slots),
      host_(bytes_of(most_tokens, most_sequences)),
      device_(bytes_of(most_tokens, most_sequences)) {}

Bucket CudaPlan::write(const std::vector<Piece>& pieces, std::span<const TokenDraw> draws,
                       const RowCounts& counts) {
  PassSequence* sequences = sequences_in(host_);
  PassToken* tokens = tokens_in(host_);
  PassDraw* drawn = draws_in(host_);
  int64_t n = 0, scored = 0, longest = 1, positions = 1;
  for (size_t s = 0; s < pieces.size(); ++s) {
    const Piece& piece = pieces[s];
    const auto count = static_cast<int64_t>(piece.tokens.size());
    const int64_t begin = counts.lengths[piece.row];
    sequences[s] = sequence_of(counts, piece.row, n, count, piece.drafts);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t behind = i - (count - piece.scored);  // its number among the scored
      if (behind >= 0 && !draws.empty()) {
        const TokenDraw& draw = draws[piece.first_result + behind];
        const double temperature = draws_on_device(draw.sampling) ? draw.sampling.temperature : 0;
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
                      .splits = cache_splits_of(positions)};
  const auto spare = static_cast<int32_t>(counts.rows() * ring_slots_);
  for (; n < bucket.tokens; ++n) tokens[n] = {.id = 0, .position = 0, .place = spare, .scored = -1};
  for (; scored < bucket.scored; ++scored) drawn[scored] = {};
  for (auto s = static_cast<int64_t>(pieces.size()); s < bucket.sequences; ++s) sequences[s] = {};
  return bucket;
}

int64_t CudaPlan::write_replay(const RowCounts& counts) {
  int64_t n = 0;
  for (int64_t row = 0; row < counts.rows(); ++row) {
    TORCH_CHECK(counts.drafts(row) == 0, "row ", row, " has drafts");
    if (counts.pending[row] > 0) sequences_in(host_)[n++] = sequence_of(counts, row, 0, 0, 0);
  }
  return n;
}

void CudaPlan::upload(int64_t tokens, int64_t sequences, int64_t draws,
                      kernels::CudaStream stream) const {
  kernels::pass_plan_cuda({.tokens = tokens,
                           .sequences = sequences,
                           .draws = draws,
                           .from = parts_of(host_),
                           .to = parts_of(device_)},
                          stream);
}

}  // namespace mambify
