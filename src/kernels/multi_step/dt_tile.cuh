// dt of a block's channels from its low rank, for the new tokens of a pass where these are few: a
// tile of pass_linear's product by one warp, with the same bits.
#pragma once

#include "kernels/multi_step/step.cuh"
#include "kernels/pass_linear/tile.cuh"

namespace mambify::kernels::multi_step {

class DtTile {
 public:
  static constexpr int kChannels = 16;  // rows of the weight
  static constexpr int kTokens = 8;     // the most

  // Of shared memory: dt, and for 32 of the rank two vectors of the weight and one of x a thread.
  static int bytes(int64_t rank) {
    return kTokens * kChannels * static_cast<int>(sizeof(float)) +
           static_cast<int>((rank + 31) / 32) * 96 * 16;
  }

  // shared: what is behind dt.
  __device__ DtTile(const Mamba1StepParams<Bf16>& p, uint4* shared)
      : p_(p),
        shared_(shared + threadIdx.x % 32),
        row_(static_cast<int>(threadIdx.x) % 32 / 4),
        first_(static_cast<int>(threadIdx.x) % 4 * 8),
        rank_(static_cast<int>(p.rank)),
        width_(static_cast<int>(padded(p.rank))) {}

  // A thread copies what it will need of the weight, and of the tokens.
  __device__ void request_weight(int first_channel) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int channel = min(first_channel + half * 8 + row_, static_cast<int>(p_.d_inner) - 1);
      const Bf16* from = p_.dt_weight + static_cast<int64_t>(channel) * width_;
#pragma unroll 1
      for (int k = first_; k < width_; k += 32) copy_async(at(k) + half * 32, from + k);
    }
  }
  __device__ void request_tokens(const Places& places, int offset, int tokens) const {
    if (row_ >= tokens) return;
    const Bf16* from = p_.low + static_cast<int64_t>(places.at(offset + row_)) * p_.low_stride;
#pragma unroll 1
    for (int k = first_; k < width_; k += 32) {
      copy_async(at(k) + 64, from + k, min(16, (rank_ - k) * 2));
    }
  }

  // dt: [tokens, kChannels], rounded. split: linear::split_of(rank).
  __device__ void multiply(int tokens, int split, float* dt) const {
    using linear::kChunk;
    end_copy_group();  // of all that was asked for: copies of no group are not waited for
    await_copies<0>();
    float sums[4] = {};
#pragma unroll 1
    for (int member = 0; member < split; ++member) {
      float part[4] = {};
#pragma unroll 1
      for (int begin = member * kChunk; begin < width_; begin += split * kChunk) {
#pragma unroll
        for (int v = 0; v < 2; ++v) {
          const int k = begin + v * 32 + first_;
          const bool is_input = k < width_;
          const uint4 none{}, *from = at(is_input ? k : first_);
          linear::multiply_vectors(part, is_input ? from[0] : none, is_input ? from[32] : none,
                                   is_input && row_ < tokens ? from[64] : none);
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[i] = __fadd_rn(sums[i], part[i]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = first_ / 4 + i % 2;
      if (token < tokens) dt[token * kChannels + row_ + i / 2 * 8] = round_to<Bf16>(sums[i]);
    }
  }

 private:
  __device__ uint4* at(int k) const { return shared_ + k / 32 * 96; }

  const Mamba1StepParams<Bf16>& p_;
  uint4* const shared_;
  const int row_, first_;  // of the tile, and of 32 inputs
  const int rank_, width_;
};

}  // namespace mambify::kernels::multi_step
