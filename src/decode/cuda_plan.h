// The plan of a pass of decoding on a CUDA device: what its graph of kernels reads of it.
#pragma once

#include <cstdint>
#include <span>
#include <tuple>
#include <vector>

#include "decode/model_rows.h"
#include "kernels/pass_tokens/params.h"

namespace mambify {

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

  bool operator<(const Bucket& other) const {
    return std::tie(tokens, sequences, scored, longest, splits) <
           std::tie(other.tokens, other.sequences, other.scored, other.longest, other.splits);
  }
};

// The graphs that are recorded: of every number of tokens up to 8, then of multiples of 8 and, from
// 64 on, of 64; splits of the cache by powers of two.
int64_t bucket_of(int64_t count);
int64_t cache_splits_of(int64_t positions);

// Whether the device draws so; filters take the host.
bool draws_on_device(const SamplingOptions& sampling);

class CudaPlan {
 public:
  // most_tokens, most_sequences: of a pass. ring_slots: places of a row in the rings.
  CudaPlan(int64_t most_tokens, int64_t most_sequences, int64_t ring_slots);

  // Plans a pass over the pieces, and says which graph runs it. draws: of all inputs' scored
  // tokens; none: what is drawn is not wanted.
  Bucket write(const std::vector<Piece>& pieces, std::span<const TokenDraw> draws,
               const RowCounts& counts);
  // Plans to bring the rows' states up to what is committed. Returns how many have to be; no row
  // may have drafts.
  int64_t write_replay(const RowCounts& counts);

  // Brings what was written to the device, of so many tokens, sequences and draws; may be part of a
  // graph.
  void upload(int64_t tokens, int64_t sequences, int64_t draws, kernels::CudaStream stream) const;

  // On the device.
  const kernels::PassToken* tokens() const { return tokens_in(device_); }
  const kernels::PassSequence* sequences() const { return sequences_in(device_); }
  const kernels::PassDraw* draws() const { return draws_in(device_); }

 private:
  // The parts of the plan in host or device memory: draws, tokens, sequences.
  template <typename Memory>
  kernels::PassPlanParams::Parts parts_of(const Memory& plan) const {
    return {.tokens = tokens_in(plan), .sequences = sequences_in(plan), .draws = draws_in(plan)};
  }
  template <typename Memory>
  kernels::PassDraw* draws_in(const Memory& plan) const {
    return plan.template as<kernels::PassDraw>();
  }
  template <typename Memory>
  kernels::PassToken* tokens_in(const Memory& plan) const {
    return reinterpret_cast<kernels::PassToken*>(draws_in(plan) + most_tokens_);
  }
  template <typename Memory>
  kernels::PassSequence* sequences_in(const Memory& plan) const {
    return reinterpret_cast<kernels::PassSequence*>(tokens_in(plan) + most_tokens_);
  }

  const int64_t most_tokens_, ring_slots_;
  kernels::PinnedMemory host_;
  kernels::DeviceMemory device_;
};

}  // namespace mambify
