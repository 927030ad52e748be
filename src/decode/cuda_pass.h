// The kernels of a pass of decoding on a CUDA device and the memory that they work in: states and
// rings of every layer, and what goes from one kernel to the next.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "decode/cuda_plan.h"
#include "kernels/multi_step/params.h"
#include "kernels/pass_attention/params.h"
#include "kernels/pass_linear/params.h"
#include "kernels/pass_norm/params.h"
#include "model/cuda_weights.h"

namespace mambify {

struct CudaPassSizes {
  int64_t rows = 0;
  int64_t capacity = 0;    // of attention's caches, in tokens of a row
  int64_t ring_slots = 0;  // places of a row in the rings
  int64_t tokens = 0;      // most of a pass
  int64_t sequences = 0;   // most of a pass
  int64_t scored = 0;      // most tokens of a pass that are scored
};

// One layer's memory. The rings hold what projections computed of each row's last tokens
// (kernels/multi_step/params.h).
struct LayerMemory {
  kernels::DeviceMemory keys, values;
  kernels::DeviceMemory in, convolved, selection, dt;
  kernels::DeviceMemory state;
};

// T: the compute type, float or kernels::Bf16.
template <typename T>
class CudaPass {
 public:
  // All must outlive this. tokens: of the output matrix's rows; empty: all. ids: where drawn tokens
  // go.
  CudaPass(const CudaWeights& weights, const CudaPassSizes& sizes, const CudaPlan& plan,
           std::span<const TokenId> tokens, const kernels::PinnedMemory& ids,
           kernels::CudaStream stream);

  // Of all that it allocated.
  int64_t bytes() const { return bytes_; }
  // Random numbers for every state and cache: for measurements.
  void fill_randomly();

  // Launches the kernels of a pass.
  void record(const Bucket& bucket);
  // Launches those that replay what is planned of so many sequences.
  void record_replay(int64_t sequences);

  // The scores of a scored token, to fp32.
  void read_scores(int64_t scored, float* to) const;
  // Every layer's state.
  void read_state(const RowCounts& counts, std::vector<MixerState>& to) const;

 private:
  using Linear = kernels::PassLinearParams<T>;

  // Bytes of the weights behind a small kernel that are brought to the L2 cache while it runs.
  static constexpr int64_t kMostPrefetched = 16 << 20;
  static kernels::Prefetch weights_of(const CudaMatrix& matrix) {
    return {.data = matrix.memory.as<void>(),
            .bytes = std::min(matrix.memory.bytes(), kMostPrefetched)};
  }
  static const T* elements_of(const kernels::DeviceMemory& memory) { return memory.as<T>(); }

  // Allocates, or counts what it would and throws Error when that is more than the device has.
  void allocate(bool counts_only);
  // A product with a matrix; p: all but the weight and its sizes, `outputs` where it is not all.
  void linear(const CudaMatrix& matrix, Linear p);
  // The same of the norm of the residual stream.
  void normed_linear(const Bucket& bucket, const kernels::DeviceMemory& norm,
                     const CudaMatrix& matrix, Linear p);
  // Adds a product to the residual stream.
  void add_to_residual(const Bucket& bucket, const CudaMatrix& matrix,
                       const kernels::DeviceMemory& x, int64_t x_stride, const T* bias = nullptr);
  void record_block(const Bucket& bucket, int64_t i);
  void record_scores(const Bucket& bucket);
  void record_draws(const Bucket& bucket);
  // Whether attention streams, for which there is memory for every token; for its other way there
  // is for as many as are scored.
  bool streams(const Bucket& bucket) const;
  void record_attention(const Bucket& bucket, const CudaBlock& block, const LayerMemory& layer);
  // The projection that a layer begins with; where it selects from its x convolved, that too, and
  // what it selects by.
  void record_mamba1_inputs(const Bucket& bucket, const CudaBlock& block, const LayerMemory& layer);
  void record_mamba1(const Bucket& bucket, const CudaBlock& block, const LayerMemory& layer);
  void record_mamba2(const Bucket& bucket, const CudaBlock& block, const LayerMemory& layer);
  kernels::Mamba1StepParams<T> mamba1_step(const CudaBlock& block, const LayerMemory& layer,
                                           int64_t sequences) const;
  kernels::Mamba2StepParams<T> mamba2_step(const CudaBlock& block, const LayerMemory& layer,
                                           int64_t sequences) const;
  void read_layer(int64_t i, const RowCounts& counts, MixerState& to) const;
  // The last inputs of each row's convolution, [rows, channels, width]; zeros before the first.
  template <typename Channel>
  void read_window(int64_t i, const RowCounts& counts, int64_t width, int64_t begin,
                   const Channel& channel, at::Tensor& window) const;

  const CudaWeights& weights_;
  const ModelConfig& config_;
  const CudaPassSizes sizes_;
  const CudaPlan& plan_;
  const kernels::PinnedMemory& ids_;
  const kernels::CudaStream stream_;
  std::vector<LayerMemory> layers_;
  int64_t bytes_ = 0;
  kernels::DeviceMemory residual_, normed_;  // [tokens, d_model]
  kernels::DeviceMemory scales_;             // [tokens], of normed_
  kernels::DeviceMemory wide_, mixed_;       // between kernels of a block
  kernels::DeviceMemory scores_;             // [scored, score_stride_]
  int64_t score_stride_ = 0;
  kernels::DeviceMemory output_tokens_;  // of the scores' columns; undefined: all
  kernels::DeviceMemory draw_scratch_, parts_, counters_, cos_, sin_;
};

}  // namespace mambify
